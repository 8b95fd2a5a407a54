"""The network of the embedded family `micro`: a small U-Net in pixel space that is conditioned on a spatial view.

It denoises a square RGB image and is given a *view* of the source. In version 1 the view is the source box-downsampled
by two, with Gaussian noise of a known level. In version 2 it is coarser by a known amount (see `micro_view`). At half
resolution, the 2x2 pixels of the image become channels, and the view is concatenated with them, as in diffusers'
upscaler. The network predicts the clean image (`prediction_type="sample"`).

Convolutions work at a half and a quarter of the resolution, transformer blocks at an eighth. The noise levels modulate
the transformer blocks through one shared map and a small table in each block (adaLN-single; Chen et al.,
"PixArt-alpha", arXiv 2310.00426).
"""

from __future__ import annotations

import math

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn
from torch.nn import functional

VIEW_DOWNSAMPLING = 2
"""The factor by which the side of the view is smaller than that of the image, in pixels."""
VIEW_NOISE_MAX = 1.0
"""The standard deviation of the view's noise at level 1, in units of the [-1, 1] pixel range."""
NO_VIEW_LEVEL = 1.25
"""The level that tells the network that its view is withheld (zeros), for the unconditional half of guidance."""
VIEWS = (1, 2)
"""The versions of the view that this program knows."""
_FREQUENCIES = 64
_CELL_SCALE = 125
"""Scales the side of a cell, 2 to about 8 pixels, to the range of the timestep."""


def _gelu(x: Tensor) -> Tensor:
    return functional.gelu(x, approximate="tanh")


class _Block(nn.Module):
    """A transformer block, self-attention and a two-layer perceptron, both modulated: (B, N, D) -> (B, N, D)."""

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
        # Written as two matrix products: at 64 tokens they are faster than the fused CPU kernel, whose backward is
        # slow.
        weights = torch.softmax(q @ k.transpose(-1, -2) * (width // self.heads) ** -0.5, dim=-1)
        y = (weights @ v).transpose(1, 2).reshape(batch, tokens, width)
        x = x + gate1 * self.proj(y)
        y = self.norm2(x) * (1 + scale2) + shift2
        return x + gate2 * self.down(_gelu(self.up(y)))


class _Residual(nn.Module):
    """Two convolutions with a modulation by the noise levels between them: (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, channels: int, embedding: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.modulation = nn.Linear(embedding, 2 * channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        # The block begins as the identity. It then needs no normalisation, which would be slow on a CPU.
        for start in (self.modulation, self.conv2):
            nn.init.zeros_(start.weight)
            nn.init.zeros_(start.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        scale, shift = self.modulation(embedding)[:, :, None, None].chunk(2, dim=1)
        y = _gelu(self.conv1(x) * (1 + scale) + shift)
        return x + self.conv2(y)


class MicroUNet(ModelMixin, ConfigMixin):
    """The denoiser of the family `micro`.

    Args:
        sample_size: the side of the square image, in pixels; a multiple of 8.
        channels: the number of channels at half resolution; there are twice as many at a quarter and four times as many
            at an eighth.
        blocks: the number of residual blocks at each resolution, on the way down and on the way up.
        layers: the number of transformer blocks at an eighth of the resolution.
        heads: the number of attention heads; must divide four times `channels`.
        view: the version of the view: 1, or 2 for a coarse view, for which the network is also given the size of the
            cells. Models without this setting were made before there were two versions.
    """

    @register_to_config
    def __init__(
        self, sample_size: int = 64, channels: int = 64, blocks: int = 1, layers: int = 4, heads: int = 4, view: int = 1
    ) -> None:
        super().__init__()
        if view not in VIEWS:
            raise ValueError(f"a view of version {view}; this program knows {VIEWS}")
        embedding, half, quarter, eighth = 2 * channels, channels, 2 * channels, 4 * channels
        numbers = 2 if view == 1 else 3  # the timestep, the view's noise, and the size of its cells
        self.embed = nn.Sequential(nn.Linear(2 * numbers * _FREQUENCIES, embedding), nn.SiLU())
        self.enter = nn.Conv2d(3 * VIEW_DOWNSAMPLING**2 + 3, half, 3, padding=1)
        self.down1 = nn.ModuleList([_Residual(half, embedding) for _ in range(blocks)])
        self.shrink1 = nn.Conv2d(half, quarter, 2, 2)
        self.down2 = nn.ModuleList([_Residual(quarter, embedding) for _ in range(blocks)])
        self.shrink2 = nn.Conv2d(quarter, eighth, 2, 2)
        self.position = nn.Parameter(torch.randn(1, (sample_size // 8) ** 2, eighth) * 0.02)
        self.modulation = nn.Linear(embedding, 6 * eighth)
        self.attention = nn.ModuleList([_Block(eighth, heads) for _ in range(layers)])
        self.grow2 = nn.Conv2d(eighth, 4 * quarter, 1)
        self.join2 = nn.Conv2d(2 * quarter, quarter, 1)
        self.up2 = nn.ModuleList([_Residual(quarter, embedding) for _ in range(blocks)])
        self.grow1 = nn.Conv2d(quarter, 4 * half, 1)
        self.join1 = nn.Conv2d(2 * half, half, 1)
        self.up1 = nn.ModuleList([_Residual(half, embedding) for _ in range(blocks)])
        self.leave = nn.Conv2d(half, 3 * VIEW_DOWNSAMPLING**2, 3, padding=1)
        # The weights, by noise level, with which the noised image and the view are added to the output. The network
        # then only has to learn a correction.
        self.skip_map = nn.Linear(embedding, 2)
        nn.init.zeros_(self.leave.weight)

    def _levels(self, timestep: Tensor, view_level: Tensor, view_cell: Tensor | None, dtype: torch.dtype) -> Tensor:
        """Sinusoidal embeddings of the conditioning numbers: (B,) each -> (B, 2 * numbers * frequencies)."""
        steps = torch.arange(_FREQUENCIES, device=timestep.device, dtype=torch.float32)
        frequencies = torch.exp(-math.log(10_000) / _FREQUENCIES * steps)
        angles = [timestep[:, None] * frequencies, 1000 * view_level[:, None] * frequencies]
        if view_cell is not None:
            angles.append(_CELL_SCALE * self.config.sample_size * view_cell[:, None] * frequencies)
        joined = torch.cat(angles, dim=1)
        return torch.cat([joined.sin(), joined.cos()], dim=1).to(dtype)

    def forward(
        self, sample: Tensor, timestep: Tensor, view: Tensor, view_level: Tensor, view_cell: Tensor | None = None
    ) -> Tensor:
        """Predict the clean image.

        Args:
            sample: (B, 3, S, S) noised image.
            timestep: (B,) float in [0, 1000), the scheduler's timestep.
            view: (B, 3, S/2, S/2) noised and downsampled source.
            view_level: (B,) float from 0 (no noise) to 1, or `NO_VIEW_LEVEL`.
            view_cell: (B,) float, the side of the view's cells as a share of the image's side, or 0 if the view is
                withheld. Only for a view of version 2.

        Returns:
            (B, 3, S, S) float, the clean image in [-1, 1].
        """
        levels = self.embed(self._levels(timestep, view_level, view_cell, sample.dtype))
        x = self.enter(torch.cat([functional.pixel_unshuffle(sample, VIEW_DOWNSAMPLING), view], dim=1))
        for block in self.down1:
            x = block(x, levels)
        at_half, x = x, self.shrink1(x)
        for block in self.down2:
            x = block(x, levels)
        at_quarter, x = x, self.shrink2(x)
        x = self._attend(x, levels)
        x = self.join2(torch.cat([functional.pixel_shuffle(self.grow2(x), 2), at_quarter], dim=1))
        for block in self.up2:
            x = block(x, levels)
        x = self.join1(torch.cat([functional.pixel_shuffle(self.grow1(x), 2), at_half], dim=1))
        for block in self.up1:
            x = block(x, levels)
        correction = functional.pixel_shuffle(self.leave(x), VIEW_DOWNSAMPLING)
        of_sample, of_view = self.skip_map(levels)[:, :, None, None, None].unbind(1)
        enlarged = functional.interpolate(view, scale_factor=float(VIEW_DOWNSAMPLING), mode="nearest")
        return correction + of_sample * sample + of_view * enlarged

    def _attend(self, x: Tensor, levels: Tensor) -> Tensor:
        """Apply the transformer blocks over all positions: (B, C, H, W) -> (B, C, H, W)."""
        batch, channels, height, width = x.shape
        tokens = x.flatten(2).transpose(1, 2) + self.position
        modulation = self.modulation(levels).view(batch, 6, channels)
        for block in self.attention:
            tokens = block(tokens, modulation)
        return tokens.transpose(1, 2).reshape(batch, channels, height, width)


class ViewEncoder(nn.Module):
    """Degrades the source into the view of version 1; takes the place `image_encoder`. It has no weights."""

    def forward(self, pixels: Tensor, noise: Tensor, view_level: Tensor) -> Tensor:
        """Downsample the source and add noise to it.

        Args:
            pixels: (B, S, S, 3) uint8, the source.
            noise: (B, 3, S/2, S/2) standard normal.
            view_level: (B,) float in [0, 1], or more for "no view".

        Returns:
            (B, 3, S/2, S/2) float, the view; zeros where the level is above 1.
        """
        image = pixels.to(noise.dtype).permute(0, 3, 1, 2) / 127.5 - 1
        level = view_level.to(noise.dtype)[:, None, None, None]
        seen = (level <= 1).to(noise.dtype)
        return seen * (functional.avg_pool2d(image, VIEW_DOWNSAMPLING) + VIEW_NOISE_MAX * level * noise)


class PixelDecoder(nn.Module):
    """From the denoised image to uint8 pixels and a flag; takes the place `vae_decoder` of a family in pixel space."""

    def forward(self, sample: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, S, S) float in [-1, 1] -> ((B, S, S, 3) uint8, (B,) bool: every value was finite)."""
        finite = torch.isfinite(sample).flatten(1).all(dim=1)
        pixels = (sample.clamp(-1, 1) * 127.5 + 127.5).round()
        # The cast to bytes is last here, and first in the encoder: TensorRT has bytes only as inputs and outputs.
        return pixels.permute(0, 2, 3, 1).to(torch.uint8), finite
