"""The family `sd-img2img`: any Stable Diffusion 1.x, 2.x, Turbo or LCM checkpoint with an empty prompt.

This is image-to-image with an empty prompt (Meng et al., "SDEdit", arXiv 2108.01073). The source's latent is noised to
the share s of the schedule, which diffusers calls `strength`, and denoised again. Only s hides the source; low
frequencies survive longest, and the model fills in the rest with what it knows about pictures. At strength 1 nothing
would be left of the source, so this is refused. Without a text, guidance has nothing to strengthen, and the sampler
omits it.
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


class SdImg2Img:
    """The family `sd-img2img`, see the description of the module."""

    name = "sd-img2img"
    license_note = "that of the checkpoint; CreativeML Open RAIL-M for Stable Diffusion 1.5"
    pipelines = (
        "StableDiffusionPipeline",
        "StableDiffusionImg2ImgPipeline",
        "LatentConsistencyModelPipeline",
        "LatentConsistencyModelImg2ImgPipeline",
    )
    parts = ("text_encoder/*", "tokenizer/*", "unet/*", "vae/*", "scheduler/*")
    steps_offset = 1
    """The value that diffusers' pipeline sets, whatever the configuration of the scheduler says."""
    look = staticmethod(latent_calls.share_from_source)
    encode = staticmethod(latent_calls.encode)
    decode = staticmethod(latent_calls.decode)

    def load(self, directory: Path, image_size: int | None = None) -> Model:
        """Read all parts except the safety checker.

        The text encoder is used once, for the empty prompt, and then released.
        """
        from diffusers import AutoencoderKL

        from diffclean.families.latent import latent_port, vae_components
        from diffclean.families.parts import load_part, load_unet, square_of
        from diffclean.families.schedulers import read_scheduler
        from diffclean.families.text import UntoldUNet, empty_prompt

        scheduler = read_scheduler(directory, steps_offset=self.steps_offset)
        prompt = empty_prompt(directory)
        unet = load_unet(directory, "unet", context=prompt.shape[-1], may_have=("time_cond_proj_dim",))
        vae = load_part(AutoencoderKL, directory, "vae")
        size = square_of(image_size, unet, vae)
        sample, predicted = (latent_port(name, vae, size) for name in ("sample", "predicted"))
        untold = (sample, Port("timestep", "float32", ()))
        components = {
            "unet": Component(UntoldUNet(unet, prompt).eval(), untold, (predicted,)),
            **vae_components(vae, size),
        }
        return Model(self.name, components, scheduler, size)

    def condition(self, call: Call, pixels: Tensor, noise: Mapping[str, Tensor], look: Look) -> dict[str, Tensor]:
        """Nothing: denoising begins at the source, and the denoiser is given nothing else about it."""
        return {}

    def withhold(self, condition: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Nothing, since there is no condition."""
        return {}
