"""The family `instruct-pix2pix`: a Stable Diffusion that is given the source's latent beside the sample, and no text.

Brooks et al., "InstructPix2Pix", arXiv 2211.09800. The U-Net has eight input channels: the noised sample, and the
source's latent as it is. With an empty instruction it redraws the picture. **The whole source reaches the denoiser at
every strength, and a trigger with it.** The family is meant for experiments, and for checkpoints that were trained to
take something away. Guidance is the paper's image guidance (eq. 3 with the same text in all terms): the other half is
given zeros in place of the source.
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


class InstructPix2Pix:
    """The family `instruct-pix2pix`, see the description of the module."""

    name = "instruct-pix2pix"
    license_note = "that of the checkpoint; see the model's page"
    pipelines = ("StableDiffusionInstructPix2PixPipeline",)
    parts = ("text_encoder/*", "tokenizer/*", "unet/*", "vae/*", "scheduler/*")
    look = staticmethod(latent_calls.share_of_schedule)
    withhold = staticmethod(latent_calls.zeros)
    encode = staticmethod(latent_calls.encode)
    decode = staticmethod(latent_calls.decode)

    def load(self, directory: Path, image_size: int | None = None) -> Model:
        """Read all parts except the safety checker. The text encoder is used once and then released."""
        from diffusers import AutoencoderKL

        from diffclean.families.latent import latent_port, vae_components
        from diffclean.families.parts import load_part, load_unet, read_config, square_of
        from diffclean.families.schedulers import read_scheduler
        from diffclean.families.text import BesideUNet, empty_prompt

        scheduler = read_scheduler(directory)
        prompt = empty_prompt(directory)
        channels = 2 * read_config(directory, "unet").get("out_channels", 0)
        unet = load_unet(directory, "unet", context=prompt.shape[-1], in_channels=channels)
        vae = load_part(AutoencoderKL, directory, "vae")
        size = square_of(image_size, unet, vae)
        sample, source, predicted = (latent_port(name, vae, size) for name in ("sample", "source", "predicted"))
        inputs = (sample, Port("timestep", "float32", ()), source)
        denoiser = BesideUNet(unet, prompt, vae.config.scaling_factor).eval()
        components = {
            "unet": Component(denoiser, inputs, (predicted,)),
            **vae_components(vae, size),
        }
        return Model(self.name, components, scheduler, size)

    def condition(self, call: Call, pixels: Tensor, noise: Mapping[str, Tensor], look: Look) -> dict[str, Tensor]:
        """The mean of the VAE's posterior."""
        (latent,) = call("vae_encoder", {"pixels": pixels, "noise": noise["vae_encoder"] * 0})
        return {"source": latent}
