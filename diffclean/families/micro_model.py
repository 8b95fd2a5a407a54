"""The network of the embedded family `micro`: a small pixel-space transformer conditioned on a spatial view.

It denoises a square RGB image while looking at a *view* of the source: the source box-downsampled by two, plus
Gaussian noise of a known level. The view is concatenated to the noised input, as in diffusers' upscaler. The network
predicts the clean image (`prediction_type="sample"`), which lets a plain transformer work on large patches (Li and He,
"Back to Basics: Let Denoising Generative Models Denoise", arXiv 2511.13720). Blocks are modulated by noise level and
view level with one shared map and a small table a block (adaLN-single; Chen et al., "PixArt-alpha", arXiv 2310.00426).
"""

from __future__ import annotations

import math

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn
from torch.nn import functional

VIEW_DOWNSAMPLING = 2
"""The view has this many times fewer pixels a side than the image."""
VIEW_NOISE_MAX = 1.0
"""Standard deviation of the view's noise at level 1, in units of the [-1, 1] pixel range."""
NO_VIEW_LEVEL = 1.25
"""The level that tells the network that its view is withheld (zeros): the unconditional half of guidance."""
_FREQUENCIES = 64


def _gelu(x: Tensor) -> Tensor:
    return functional.gelu(x, approximate="tanh")


class _Block(nn.Module):
    """Self-attention and a two-layer perceptron, both modulated: (B, N, D) -> (B, N, D)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width, elementwise_affine=False)
        self.norm2 = nn.LayerNorm(width, elementwise_affine=False)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)
        self.table = nn.Parameter(torch.randn(6, width) / width**0.5)

    def forward(self, x: Tensor, modulation: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        shift1, scale1, gate1, shift2, scale2, gate2 = (modulation + self.table).unsqueeze(2).unbind(1)
        y = self.norm1(x) * (1 + scale1) + shift1
        q, k, v = self.qkv(y).view(batch, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        # Written out: at 64 tokens two matrix products beat the fused CPU kernel, whose backward is slow.
        weights = torch.softmax(q @ k.transpose(-1, -2) * (width // self.heads) ** -0.5, dim=-1)
        y = (weights @ v).transpose(1, 2).reshape(batch, tokens, width)
        x = x + gate1 * self.proj(y)
        y = self.norm2(x) * (1 + scale2) + shift2
        return x + gate2 * self.down(_gelu(self.up(y)))


class MicroTransformer(ModelMixin, ConfigMixin):
    """Denoiser of the family `micro`; it fills the `unet` place of the model directory.

    Args:
        sample_size: side of the square image, in pixels; a multiple of `patch_size`.
        patch_size: side of a token's patch, in pixels.
        width: channels of a token.
        layers: transformer blocks.
        heads: attention heads; divides `width`.
        stem_channels: channels of the full-resolution convolutions before and after the transformer.
    """

    @register_to_config
    def __init__(
        self,
        sample_size: int = 64,
        patch_size: int = 8,
        width: int = 256,
        layers: int = 8,
        heads: int = 4,
        stem_channels: int = 16,
    ) -> None:
        super().__init__()
        self.patch_size = patch_size
        tokens = (sample_size // patch_size) ** 2
        self.stem = nn.Conv2d(6, stem_channels, 3, padding=1)
        self.patchify = nn.Conv2d(stem_channels, width, patch_size, patch_size)
        self.position = nn.Parameter(torch.randn(1, tokens, width) * 0.02)
        self.level_map = nn.Sequential(nn.Linear(4 * _FREQUENCIES, width), nn.SiLU(), nn.Linear(width, 6 * width))
        self.blocks = nn.ModuleList([_Block(width, heads) for _ in range(layers)])
        self.norm = nn.LayerNorm(width)
        self.unpatchify = nn.Linear(width, patch_size**2 * stem_channels)
        self.merge = nn.Conv2d(2 * stem_channels, 2 * stem_channels, 3, padding=1)
        self.head = nn.Conv2d(2 * stem_channels, 3, 3, padding=1)
        # How much of the noised image and of the view goes straight to the output, by the levels of noise on both: the
        # network then learns a correction only, which it does several times faster than the whole image.
        shares = nn.Linear(width, 2)
        self.skip_map = nn.Sequential(nn.Linear(4 * _FREQUENCIES, width), nn.SiLU(), shares)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(shares.weight)
        nn.init.constant_(shares.bias, 0.3)

    def _levels(self, timestep: Tensor, view_level: Tensor, dtype: torch.dtype) -> Tensor:
        """Sinusoids of both levels: (B,), (B,) -> (B, 4 * frequencies)."""
        steps = torch.arange(_FREQUENCIES, device=timestep.device, dtype=torch.float32)
        frequencies = torch.exp(-math.log(10_000) / _FREQUENCIES * steps)
        angles = torch.cat([timestep[:, None] * frequencies, 1000 * view_level[:, None] * frequencies], dim=1)
        return torch.cat([angles.sin(), angles.cos()], dim=1).to(dtype)

    def forward(self, sample: Tensor, timestep: Tensor, view: Tensor, view_level: Tensor) -> Tensor:
        """Predict the clean image.

        Args:
            sample: (B, 3, S, S) noised image.
            timestep: (B,) float in [0, 1000), the scheduler's timestep.
            view: (B, 3, S/2, S/2) noised, downsampled source.
            view_level: (B,) float: 0 (no noise) to 1, or `NO_VIEW_LEVEL`.

        Returns:
            (B, 3, S, S) float, the clean image in [-1, 1].
        """
        batch, _, side, _ = sample.shape
        patch = self.patch_size
        grid = side // patch
        full_view = functional.interpolate(view, scale_factor=float(VIEW_DOWNSAMPLING), mode="nearest")
        stem = _gelu(self.stem(torch.cat([sample, full_view], dim=1)))
        x = self.patchify(stem).flatten(2).transpose(1, 2) + self.position
        levels = self._levels(timestep, view_level, x.dtype)
        modulation = self.level_map(levels).view(batch, 6, -1)
        for block in self.blocks:
            x = block(x, modulation)
        x = self.unpatchify(self.norm(x)).view(batch, grid, grid, patch, patch, -1)
        x = x.permute(0, 5, 1, 3, 2, 4).reshape(batch, -1, side, side)
        correction = self.head(_gelu(self.merge(torch.cat([x, stem], dim=1))))
        of_sample, of_view = self.skip_map(levels)[:, :, None, None, None].unbind(1)
        clean: Tensor = correction + of_sample * sample + of_view * full_view
        return clean


class ViewEncoder(nn.Module):
    """Degrade the source into the view: the `image_encoder` place. It has no weights."""

    def forward(self, pixels: Tensor, noise: Tensor, view_level: Tensor) -> Tensor:
        """Look at the source through a narrow, noisy window.

        Args:
            pixels: (B, S, S, 3) uint8, the source.
            noise: (B, 3, S/2, S/2) standard normal.
            view_level: (B,) float in [0, 1], or more for "no view".

        Returns:
            (B, 3, S/2, S/2) float view; zeros where the level is above 1.
        """
        image = pixels.permute(0, 3, 1, 2).to(noise.dtype) / 127.5 - 1
        level = view_level.to(noise.dtype)[:, None, None, None]
        seen = (level <= 1).to(noise.dtype)
        return seen * (functional.avg_pool2d(image, VIEW_DOWNSAMPLING) + VIEW_NOISE_MAX * level * noise)


class PixelEncoder(nn.Module):
    """uint8 pixels to the space that is noised: the `vae_encoder` place of a pixel-space family."""

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, S, S, 3) uint8 -> (B, 3, S, S) float in [-1, 1]."""
        return pixels.permute(0, 3, 1, 2).float() / 127.5 - 1


class PixelDecoder(nn.Module):
    """The denoised image to uint8 pixels and a flag: the `vae_decoder` place of a pixel-space family."""

    def forward(self, sample: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, S, S) float in [-1, 1] -> ((B, S, S, 3) uint8, (B,) bool: every value was finite)."""
        finite = torch.isfinite(sample).flatten(1).all(dim=1)
        pixels = (sample.clamp(-1, 1) * 127.5 + 127.5).round()
        return pixels.to(torch.uint8).permute(0, 2, 3, 1), finite
