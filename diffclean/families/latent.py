"""The VAE of a latent diffusion model as two components, which several families share: its encoder and its decoder.

Latents are scaled by the VAE's `scaling_factor` in both directions. Its `shift_factor`, `latents_mean` and
`latents_std` are ignored in both directions, as in diffusers' pipelines of most families, since the U-Nets were trained
in this way. A family whose pipeline uses the `shift_factor` says so.
"""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor, nn

from diffclean.families.base import Component, Port

log = logging.getLogger(__name__)


class LatentDecoder(nn.Module):
    """From a latent to pixels and a `finite` flag; takes the place `vae_decoder`."""

    def __init__(self, vae: Any, shift: float = 0.0) -> None:
        super().__init__()
        self.decoder = vae.decoder
        self.quant = vae.post_quant_conv if vae.config.use_post_quant_conv else nn.Identity()
        self.scale, self.shift = vae.config.scaling_factor, shift

    def forward(self, sample: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, S/f, S/f) float latent -> ((B, S, S, 3) uint8, (B,) bool: every value was finite)."""
        image = self.decoder(self.quant(self._unscaled(sample))).float()
        finite = torch.isfinite(image).flatten(1).all(dim=1)
        pixels = (image.clamp(-1, 1) * 127.5 + 127.5).round()
        # The cast to bytes is last here, and first in the encoders: TensorRT has bytes only as inputs and outputs.
        return pixels.permute(0, 2, 3, 1).to(torch.uint8), finite

    def _unscaled(self, sample: Tensor) -> Tensor:
        return sample / self.scale + self.shift if self.shift else sample / self.scale


class LatentEncoder(nn.Module):
    """From pixels to a sample of the VAE's posterior; takes the place `vae_encoder`."""

    def __init__(self, vae: Any, shift: float = 0.0) -> None:
        super().__init__()
        self.encoder = vae.encoder
        self.quant = vae.quant_conv if vae.config.use_quant_conv else nn.Identity()
        self.scale, self.shift = vae.config.scaling_factor, shift

    def forward(self, pixels: Tensor, noise: Tensor) -> Tensor:
        """(B, S, S, 3) uint8, (B, C, S/f, S/f) standard normal -> (B, C, S/f, S/f) scaled latent."""
        image = pixels.to(noise.dtype).permute(0, 3, 1, 2) / 127.5 - 1
        mean, log_variance = self.quant(self.encoder(image)).chunk(2, dim=1)
        latent = mean + (0.5 * log_variance.clamp(-30, 20)).exp() * noise
        return (latent - self.shift) * self.scale if self.shift else latent * self.scale


def latent_factor(vae: Any) -> int:
    """The number of pixels along a side that one latent stands for."""
    return int(2 ** (len(vae.config.block_out_channels) - 1))


def pixel_port(image_size: int) -> Port:
    """The port for the source, and for the variation: a square of grey levels."""
    return Port("pixels", "uint8", (image_size, image_size, 3))


def latent_port(name: str, vae: Any, image_size: int) -> Port:
    """The port for the latent of a square."""
    side = image_size // latent_factor(vae)
    return Port(name, "float32", (vae.config.latent_channels, side, side))


def vae_components(vae: Any, image_size: int, shifted: bool = False) -> dict[str, Component]:
    """The two components of a VAE.

    Args:
        vae: diffusers' `AutoencoderKL`.
        image_size: the side of the square, in pixels.
        shifted: whether the family's pipeline uses the VAE's `shift_factor`.
    """
    pixels = pixel_port(image_size)
    shift = float(vae.config.get("shift_factor") or 0) if shifted else 0.0
    unused = ("latents_mean", "latents_std") if shifted else ("shift_factor", "latents_mean", "latents_std")
    passed = [name for name in unused if vae.config.get(name)]
    if passed:
        log.info("The VAE's %s is ignored, as in diffusers' pipelines of this family.", " and ".join(passed))
    upcast = bool(vae.config.get("force_upcast"))
    sample, noise, latent = (latent_port(name, vae, image_size) for name in ("sample", "noise", "latent"))
    decoded = (pixels, Port("finite", "bool", ()))
    return {
        "vae_decoder": Component(LatentDecoder(vae, shift).eval(), (sample,), decoded, upcast),
        "vae_encoder": Component(LatentEncoder(vae, shift).eval(), (pixels, noise), (latent,), upcast),
    }
