"""The VAE of a latent diffusion model as two components, which several families share: its encoder and its decoder.

Latents are scaled by the VAE's `scaling_factor` in both directions. Its `shift_factor`, `latents_mean` and
`latents_std` are ignored in both directions, as in diffusers' pipelines of most families, since the U-Nets were trained
in this way. The exceptions: the pipelines of Stable Diffusion XL follow `latents_mean` and `latents_std`, and that of
FLUX follows the `shift_factor`.
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

    def __init__(self, vae: Any, normalised: bool = False, shifted: bool = False) -> None:
        super().__init__()
        self.decoder = vae.decoder
        self.quant = vae.post_quant_conv if vae.config.use_post_quant_conv else nn.Identity()
        self.scale = _Scale(vae, normalised, shifted)

    def forward(self, sample: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, S/f, S/f) float latent -> ((B, S, S, 3) uint8, (B,) bool: every value was finite)."""
        return pixels_of(self.decoder(self.quant(self.scale.undone(sample))))


def pixels_of(image: Tensor) -> tuple[Tensor, Tensor]:
    """(B, 3, S, S) float in [-1, 1] -> ((B, S, S, 3) uint8, (B,) bool: every value was finite)."""
    image = image.float()
    finite = torch.isfinite(image).flatten(1).all(dim=1)
    pixels = (image.clamp(-1, 1) * 127.5 + 127.5).round()
    # The cast to bytes is last here, and first in the encoders: TensorRT has bytes only as inputs and outputs.
    return pixels.permute(0, 2, 3, 1).to(torch.uint8), finite

    def _unscaled(self, sample: Tensor) -> Tensor:
        return sample / self.scale + self.shift if self.shift else sample / self.scale


class LatentEncoder(nn.Module):
    """From pixels to a sample of the VAE's posterior; takes the place `vae_encoder`."""

    def __init__(self, vae: Any, normalised: bool = False, shifted: bool = False) -> None:
        super().__init__()
        self.encoder = vae.encoder
        self.quant = vae.quant_conv if vae.config.use_quant_conv else nn.Identity()
        self.scale = _Scale(vae, normalised, shifted)

    def forward(self, pixels: Tensor, noise: Tensor) -> Tensor:
        """(B, S, S, 3) uint8, (B, C, S/f, S/f) standard normal -> (B, C, S/f, S/f) scaled latent."""
        image = pixels.to(noise.dtype).permute(0, 3, 1, 2) / 127.5 - 1
        mean, log_variance = self.quant(self.encoder(image)).chunk(2, dim=1)
        latent = mean + (0.5 * log_variance.clamp(-30, 20)).exp() * noise
        scaled: Tensor = self.scale(latent)
        return scaled


class _Scale(nn.Module):
    """How latents are scaled for the denoiser: by one factor, after a shift, or by a mean and a deviation a channel."""

    mean: Tensor
    factor: Tensor

    def __init__(self, vae: Any, normalised: bool, shifted: bool) -> None:
        super().__init__()
        self.scaling_factor = vae.config.scaling_factor
        self.shift = float(vae.config.get("shift_factor") or 0) if shifted else 0.0
        self.normalised = normalised and all(vae.config.get(name) is not None for name in _STATISTICS)
        if self.normalised:
            mean, deviation = (torch.tensor(vae.config[name]).float()[:, None, None] for name in _STATISTICS)
            self.register_buffer("mean", mean)
            self.register_buffer("factor", self.scaling_factor / deviation)

    def forward(self, latent: Tensor) -> Tensor:
        """(B, C, H, W) of the VAE -> the same for the denoiser."""
        if self.normalised:
            return (latent - self.mean) * self.factor
        return (latent - self.shift) * self.scaling_factor if self.shift else latent * self.scaling_factor

    def undone(self, latent: Tensor) -> Tensor:
        """(B, C, H, W) of the denoiser -> the same for the VAE."""
        if self.normalised:
            return latent / self.factor + self.mean
        return latent / self.scaling_factor + self.shift if self.shift else latent / self.scaling_factor


_STATISTICS = ("latents_mean", "latents_std")


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


def vae_components(vae: Any, image_size: int, normalised: bool = False, shifted: bool = False) -> dict[str, Component]:
    """The two components of a VAE for squares of `image_size` pixels.

    Args:
        vae: a VAE of diffusers.
        image_size: the side of the square, in pixels.
        normalised: whether the family follows `latents_mean` and `latents_std`, if the VAE has both.
        shifted: whether the family follows the `shift_factor`.
    """
    pixels = pixel_port(image_size)
    followed = _STATISTICS if normalised and all(vae.config.get(name) for name in _STATISTICS) else ()
    ignored = [name for name in ("shift_factor", *_STATISTICS) if name not in followed]
    passed = [name for name in ignored if vae.config.get(name) and not (shifted and name == "shift_factor")]
    if passed:
        log.info("The VAE's %s is ignored, as in diffusers' pipelines of this family.", " and ".join(passed))
    upcast = bool(vae.config.get("force_upcast"))
    sample, noise, latent = (latent_port(name, vae, image_size) for name in ("sample", "noise", "latent"))
    decoded = (pixels, Port("finite", "bool", ()))
    return {
        "vae_decoder": Component(LatentDecoder(vae, normalised, shifted).eval(), (sample,), decoded, upcast),
        "vae_encoder": Component(LatentEncoder(vae, normalised, shifted).eval(), (pixels, noise), (latent,), upcast),
    }
