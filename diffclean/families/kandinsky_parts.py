"""Parts of Kandinsky 2.2: its U-Net, and MoVQ, which has the place of a VAE.

MoVQ (Zheng et al., arXiv 2209.09002) is an autoencoder with a codebook. As in diffusers' pipelines, latents are neither
quantised nor scaled, and there is no posterior to sample from. The normalisation layers of its decoder are given the
latent once more.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diffclean.errors import DiffcleanError
from diffclean.families.base import Component, Port
from diffclean.families.latent import latent_port, pixel_port, pixels_of
from diffclean.families.parts import load_part


class EmbeddingPairUNet(nn.Module):
    """A U-Net that is told the embedding of a picture, or that of a picture of zeros; takes the place `unet`."""

    nothing: Tensor

    def __init__(self, unet: Any, nothing: Tensor) -> None:
        super().__init__()
        self.unet = unet
        self.register_buffer("nothing", nothing)

    def forward(self, sample: Tensor, timestep: Tensor, image_embeds: Tensor, told: Tensor) -> Tensor:
        """Predict what the scheduler's prediction type asks for.

        Args:
            sample: (B, C, H, W) noised latent.
            timestep: (B,) float.
            image_embeds: (B, D) embedding of the source.
            told: (B,) float: 1 to condition on `image_embeds`, 0 to condition on the embedding of nothing.

        Returns:
            (B, C, H, W) float, the prediction, without the variance that the network gives beside it.
        """
        known = {"image_embeds": torch.where(told[:, None] > 0.5, image_embeds, self.nothing)}
        predicted: Tensor = self.unet(sample, timestep, None, added_cond_kwargs=known, return_dict=False)[0]
        return predicted[:, : sample.shape[1]]


class MovqDecoder(nn.Module):
    """From a latent to pixels and a `finite` flag; takes the place `vae_decoder`."""

    def __init__(self, movq: Any) -> None:
        super().__init__()
        self.quant = movq.post_quant_conv
        self.decoder = movq.decoder
        self.spatial = movq.config.norm_type == "spatial"

    def forward(self, sample: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, S/f, S/f) float latent -> ((B, S, S, 3) uint8, (B,) bool: every value was finite)."""
        return pixels_of(self.decoder(self.quant(sample), sample if self.spatial else None))


class MovqEncoder(nn.Module):
    """From pixels to a latent; takes the place `vae_encoder`."""

    def __init__(self, movq: Any) -> None:
        super().__init__()
        self.encoder = movq.encoder
        self.quant = movq.quant_conv

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, S, S, 3) uint8 -> (B, C, S/f, S/f) float."""
        image = pixels.to(self.quant.weight.dtype).permute(0, 3, 1, 2) / 127.5 - 1
        latent: Tensor = self.quant(self.encoder(image))
        return latent


def load_movq(directory: Path) -> Any:
    """Read `movq/` of a model directory.

    Raises:
        DiffcleanError: as for `load_part`, or it works in another way than diffusers' pipelines of Kandinsky expect.
    """
    from diffusers import VQModel

    movq = load_part(VQModel, directory, "movq")
    width = movq.config.vq_embed_dim or movq.config.latent_channels
    if movq.config.lookup_from_codebook or width != movq.config.latent_channels:
        raise DiffcleanError(
            f"The network in {directory / 'movq'} is not that of Kandinsky 2.2: lookup_from_codebook "
            f"{movq.config.lookup_from_codebook} (expected False), vq_embed_dim {width} (expected "
            f"{movq.config.latent_channels}).",
            "Copy all parts from the same model.",
        )
    return movq


def movq_components(movq: Any, image_size: int) -> dict[str, Component]:
    """The two components of MoVQ for squares of `image_size` pixels."""
    pixels, upcast = pixel_port(image_size), bool(movq.config.get("force_upcast"))
    sample, latent = (latent_port(name, movq, image_size) for name in ("sample", "latent"))
    return {
        "vae_decoder": Component(MovqDecoder(movq).eval(), (sample,), (pixels, Port("finite", "bool", ())), upcast),
        "vae_encoder": Component(MovqEncoder(movq).eval(), (pixels,), (latent,), upcast),
    }
