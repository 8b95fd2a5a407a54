"""The family `ip-adapter-sdxl`: Stable Diffusion XL with an image in place of a text.

As `ip_adapter`, and the unconditional half of guidance has zeros in place of the empty text.
"""

from __future__ import annotations

from pathlib import Path

from diffclean.families import latent_calls
from diffclean.families.base import Model


class IpAdapterSdxl:
    """The family `ip-adapter-sdxl`, see the description of the module."""

    name = "ip-adapter-sdxl"
    license_note = "those of the adapter, of its image encoder and of the checkpoint; Apache 2.0 for h94/IP-Adapter"
    pipelines = ("StableDiffusionXLPipeline+ip_adapter", "StableDiffusionXLImg2ImgPipeline+ip_adapter")
    parts = (
        "image_encoder/*",
        "ip_adapter/*",
        "text_encoder/*",
        "text_encoder_2/*",
        "tokenizer/*",
        "tokenizer_2/*",
        "unet/*",
        "vae/*",
        "scheduler/*",
    )

    look = staticmethod(latent_calls.share_of_schedule)
    features = staticmethod(latent_calls.features)
    condition = staticmethod(latent_calls.tokens)
    withhold = staticmethod(latent_calls.zeros)
    encode = staticmethod(latent_calls.encode)
    decode = staticmethod(latent_calls.decode)

    def load(self, directory: Path, image_size: int | None = None) -> Model:
        """Read all parts. The text encoders are used once and then released."""
        from diffclean.families.image_prompt import SdxlPromptedUNet, adapted, prompted
        from diffclean.families.schedulers import read_scheduler
        from diffclean.families.sdxl import read_sdxl

        scheduler = read_scheduler(directory)
        model = read_sdxl(directory, image_size)
        tokens = adapted(directory, model.unet, model.size).eval()
        nothing = tokens.of_nothing()
        unet = SdxlPromptedUNet(model, nothing).eval()
        components = prompted(tokens, unet, nothing, model.vae, model.size, normalised=True)
        return Model(self.name, components, scheduler, model.size)
