"""The family `ip-adapter`: Stable Diffusion 1.x with an image in place of a text.

Ye et al., "IP-Adapter", arXiv 2308.06721. The text is empty. Of the source, the sampler knows only a few tokens
(`image_prompt`). The plain adapter makes them of one vector, which says what the picture shows but not where. "Plus"
makes them of all patches, so more of the picture comes through. At strength 1, denoising begins at pure noise. At
strength s < 1, it begins at the source's latent, noised to the share s of the schedule.
"""

from __future__ import annotations

from pathlib import Path

from diffclean.families import latent_calls
from diffclean.families.base import Model


class IpAdapter:
    """The family `ip-adapter`, see the description of the module."""

    name = "ip-adapter"
    license_note = "those of the adapter, of its image encoder and of the checkpoint; Apache 2.0 for h94/IP-Adapter"
    pipelines = ("StableDiffusionPipeline+ip_adapter", "StableDiffusionImg2ImgPipeline+ip_adapter")
    parts = (
        "image_encoder/*",
        "feature_extractor/*",
        "ip_adapter/*",
        "text_encoder/*",
        "tokenizer/*",
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
        """Read all parts except the safety checker. The text encoder is used once and then released."""
        from diffusers import AutoencoderKL

        from diffclean.families.image_prompt import PromptedUNet, adapted, prompted
        from diffclean.families.parts import load_part, load_unet, square_of
        from diffclean.families.schedulers import read_scheduler
        from diffclean.families.text import empty_prompt

        scheduler = read_scheduler(directory)
        prompt = empty_prompt(directory)
        unet = load_unet(directory, "unet", context=prompt.shape[-1])
        vae = load_part(AutoencoderKL, directory, "vae")
        size = square_of(image_size, unet, vae)
        tokens = adapted(directory, unet, size).eval()
        nothing = tokens.of_nothing()
        components = prompted(tokens, PromptedUNet(unet, prompt, nothing).eval(), nothing, vae, size)
        return Model(self.name, components, scheduler, size)
