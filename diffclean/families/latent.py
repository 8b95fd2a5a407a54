"""The two ends of a latent diffusion model, which its families share: a VAE's encoder and decoder as components.

Latents are scaled by the VAE's `scaling_factor`, both ways. Its `shift_factor`, `latents_mean` and `latents_std` are
passed over, both ways: diffusers' pipelines of these families do so, and the U-Nets were trained with them.
"""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor, nn

from diffclean.families.base import Component, Port

log = logging.getLogger(__name__)


class LatentDecoder(nn.Module):
    """A VAE's decoder to pixels and a flag: the `vae_decoder` place."""

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.decoder = vae.decoder
        self.quant = vae.post_quant_conv if vae.config.use_post_quant_conv else nn.Identity()
        self.scale = vae.config.scaling_factor

    def forward(self, sample: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, S/f, S/f) float latent -> ((B, S, S, 3) uint8, (B,) bool: every value was finite)."""
        image = self.decoder(self.quant(sample / self.scale)).float()
        finite = torch.isfinite(image).flatten(1).all(dim=1)
        pixels = (image.clamp(-1, 1) * 127.5 + 127.5).round()
        # Bytes last, and first in the encoders: TensorRT has them at its doors only.
        return pixels.permute(0, 2, 3, 1).to(torch.uint8), finite


class LatentEncoder(nn.Module):
    """Pixels to a draw from a VAE's posterior: the `vae_encoder` place."""

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.encoder = vae.encoder
        self.quant = vae.quant_conv if vae.config.use_quant_conv else nn.Identity()
        self.scale = vae.config.scaling_factor

    def forward(self, pixels: Tensor, noise: Tensor) -> Tensor:
        """(B, S, S, 3) uint8, (B, C, S/f, S/f) standard normal -> (B, C, S/f, S/f) scaled latent."""
        image = pixels.to(noise.dtype).permute(0, 3, 1, 2) / 127.5 - 1
        mean, log_variance = self.quant(self.encoder(image)).chunk(2, dim=1)
        latent = mean + (0.5 * log_variance.clamp(-30, 20)).exp() * noise
        return latent * self.scale


def latent_factor(vae: Any) -> int:
    """How many pixels a side one latent stands for."""
    return int(2 ** (len(vae.config.block_out_channels) - 1))


def pixel_port(image_size: int) -> Port:
    """The source, or the variation: a square of grey levels."""
    return Port("pixels", "uint8", (image_size, image_size, 3))


def latent_port(name: str, vae: Any, image_size: int) -> Port:
    """A port for what a VAE makes of a square."""
    side = image_size // latent_factor(vae)
    return Port(name, "float32", (vae.config.latent_channels, side, side))


def vae_components(vae: Any, image_size: int) -> dict[str, Component]:
    """Both ends, for squares of `image_size` pixels."""
    pixels = pixel_port(image_size)
    passed = [name for name in ("shift_factor", "latents_mean", "latents_std") if vae.config.get(name)]
    if passed:
        log.info("The VAE's %s is passed over, as in diffusers' pipelines of this kind.", " and ".join(passed))
    upcast = bool(vae.config.get("force_upcast"))
    sample, noise, latent = (latent_port(name, vae, image_size) for name in ("sample", "noise", "latent"))
    return {
        "vae_decoder": Component(LatentDecoder(vae).eval(), (sample,), (pixels, Port("finite", "bool", ())), upcast),
        "vae_encoder": Component(LatentEncoder(vae).eval(), (pixels, noise), (latent,), upcast),
    }
