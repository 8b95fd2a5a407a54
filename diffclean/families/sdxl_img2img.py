"""The family `sdxl-img2img`: Stable Diffusion XL and SDXL-Turbo with an empty prompt.

Podell et al., arXiv 2307.01952; Sauer et al., "Adversarial Diffusion Distillation", arXiv 2311.17042. This is
image-to-image (Meng et al., "SDEdit", arXiv 2108.01073): the source's latent is noised to the share s of the schedule
and denoised again, and only s hides the source. At strength 1 nothing would be left of it, so this is refused. The
unconditional half of guidance is not the empty prompt, as it is in older models, but zeros. Guidance therefore has an
effect, although neither half is told anything about the source.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from diffclean.families import latent_calls
from diffclean.families.base import Component, Look, Model, Port

if TYPE_CHECKING:
    from torch import Tensor

    from diffclean.families.base import Call


class SdxlImg2Img:
    """The family `sdxl-img2img`, see the description of the module."""

    name = "sdxl-img2img"
    license_note = "that of the checkpoint; CreativeML Open RAIL++-M for Stable Diffusion XL 1.0"
    pipelines = ("StableDiffusionXLPipeline", "StableDiffusionXLImg2ImgPipeline")
    parts = (
        "text_encoder/*",
        "text_encoder_2/*",
        "tokenizer/*",
        "tokenizer_2/*",
        "unet/*",
        "vae/*",
        "scheduler/*",
    )
    look = staticmethod(latent_calls.share_from_source)
    withhold = staticmethod(latent_calls.zeros)
    encode = staticmethod(latent_calls.encode)
    decode = staticmethod(latent_calls.decode)

    def load(self, directory: Path, image_size: int | None = None) -> Model:
        """Read all parts. The text encoders are used once, for the empty prompt, and then released."""
        from diffclean.families.latent import latent_port, vae_components
        from diffclean.families.schedulers import read_scheduler
        from diffclean.families.sdxl import SdxlUNet, read_sdxl

        scheduler = read_scheduler(directory)
        model = read_sdxl(directory, image_size)
        sample, predicted = (latent_port(name, model.vae, model.size) for name in ("sample", "predicted"))
        inputs = (sample, Port("timestep", "float32", ()), Port("told", "float32", ()))
        components = {
            "unet": Component(SdxlUNet(model).eval(), inputs, (predicted,)),
            **vae_components(model.vae, model.size, normalised=True),
        }
        return Model(self.name, components, scheduler, model.size)

    def condition(self, call: Call, pixels: Tensor, noise: Mapping[str, Tensor], look: Look) -> dict[str, Tensor]:
        """The flag that the empty prompt is used; denoising begins at the source, and nothing else tells of it."""
        return {"told": pixels.new_ones(len(pixels)).float()}
