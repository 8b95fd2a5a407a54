"""The coarse view of the family `micro`, version 2, which withholds resolution as well as precision.

White noise cannot hide a pattern that is coherent over many pixels, because the network averages the noise away. A view
of fewer and larger cells can hide it, because everything inside a cell is averaged before the network sees it. A coarse
view is described by two numbers, the averaging factor and the noise level, and the network is given both.

A cell is a whole number of pixels *of the source*. If a source of 32 px was enlarged to a square of 64 px, its own
pixels are two pixels wide, and the cells begin and end where its own pixels do.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from diffclean.families.micro_model import NO_VIEW_LEVEL, VIEW_DOWNSAMPLING, VIEW_NOISE_MAX, MicroUNet, ViewEncoder

COARSE_FACTORS = (2, 4, 8)
"""The averaging factors that training draws from, in pixels of the model's square."""
COARSE_NOISE_MAX = 0.6
"""The largest noise level that training draws for a coarse view."""
_BANDS = ((0.25, 2), (0.6, 4), (1.0, 8))
"""Pairs of (largest strength, averaging factor), see `coarse_look`."""
_NOISE_SLOPE = 3.2
_EDGE = 1e-4
"""A share of a cell; a position this close to the beginning of a cell belongs to it, whatever rounding does."""


def coarse_look(strength: float) -> tuple[int, float]:
    """Translate a strength into an averaging factor and a noise level, for a model with coarse views.

    The factor is 2 up to a strength of 0.25, 4 up to 0.6 and 8 above. The noise level is 3.2 * strength / factor. If
    four cells are averaged into one of twice the side, their noise is halved. Therefore, where the factor doubles and
    the noise is halved, smooth structure is hidden exactly as much as before, and fine structure is hidden in addition:
    the view shows steadily less as the strength grows.

    Args:
        strength: the strength in (0, 1].

    Returns:
        The averaging factor and the noise level.
    """
    factor = next((factor for most, factor in _BANDS if strength <= most), _BANDS[-1][1])
    return factor, _NOISE_SLOPE * strength / factor


def cell_sides(factor: Tensor, own: Tensor, size: int) -> Tensor:
    """The sides of the view's cells: a whole number of source pixels, but never finer than the grid of the view.

    Args:
        factor: (B,) float, the averaging factor in pixels of the square.
        own: (B, 2) float, how many pixels of the source lie across the square, vertically and horizontally. A source
            that is larger than the square was reduced, so its own pixels are those of the square.
        size: the side of the square, in pixels.

    Returns:
        (B, 2) float, the height and width of a cell as shares of the square's side.
    """
    own = own.clamp(1, size)
    whole = torch.floor(factor[:, None] * own / size + 0.5).clamp_min(1)
    return (whole / own).clamp(VIEW_DOWNSAMPLING / size, 1)


def view_inputs(noise: Tensor, cell: Tensor) -> dict[str, Tensor]:
    """The inputs of the coarse view's encoder other than pixels and level.

    The borders of the cells are computed here and not in the graph of the encoder. They must be exact, and a runtime
    that computes in half precision would move them.

    Args:
        noise: (B, 3, S/2, S/2) standard normal; each cell uses one of these numbers for each channel.
        cell: (B, 2) float on the CPU, see `cell_sides`.

    Returns:
        On the device of `noise`: `noise`, with the same number all over a cell, and `down` and `across`, (B, S/2, S)
            float. Row i of these averages the pixels of the cell that contains row (or column) i of the view.
    """
    count, channels, places, _ = noise.shape
    (down, rows), (across, columns) = (_along(side, places) for side in cell.unbind(1))
    rows, columns = rows.to(noise.device), columns.to(noise.device)
    noise = noise.gather(2, rows[:, None, :, None].expand(count, channels, places, places))
    noise = noise.gather(3, columns[:, None, None, :].expand(count, channels, places, places))
    return {"noise": noise, "down": down.to(noise.device), "across": across.to(noise.device)}


def _along(side: Tensor, places: int) -> tuple[Tensor, Tensor]:
    """Cells along one axis: (B,) sides -> (B, places, S) float averages, (B, places) int64 cell of each place."""
    size = VIEW_DOWNSAMPLING * places
    width = (size * side)[:, None]
    middle = (torch.arange(places) + 0.5) * VIEW_DOWNSAMPLING
    number = torch.floor(middle / width + _EDGE)
    begin, pixel = (number * width)[:, :, None], torch.arange(size)
    covered = torch.minimum(pixel + 1, begin + width[:, :, None]) - torch.maximum(pixel, begin)
    covered = covered.clamp_min(0)
    return covered / covered.sum(dim=-1, keepdim=True), number.long()


class CoarseViewEncoder(nn.Module):
    """Averages the source over cells and adds noise to each; takes the place `image_encoder`. It has no weights."""

    def forward(self, pixels: Tensor, noise: Tensor, view_level: Tensor, down: Tensor, across: Tensor) -> Tensor:
        """Average the source over its cells and add noise to them.

        Args:
            pixels: (B, S, S, 3) uint8, the source.
            noise: (B, 3, S/2, S/2), see `view_inputs`.
            view_level: (B,) float in [0, COARSE_NOISE_MAX], the noise on each cell; more than 1 means "no view".
            down: (B, S/2, S) float, see `view_inputs`.
            across: (B, S/2, S) float, see `view_inputs`.

        Returns:
            (B, 3, S/2, S/2) float, the view, constant inside each cell; zeros where the level is above 1.
        """
        image = pixels.to(noise.dtype).permute(0, 3, 1, 2) / 127.5 - 1
        level = view_level.to(noise.dtype)[:, None, None, None]
        seen = (level <= 1).to(noise.dtype)
        means = down[:, None] @ image @ across[:, None].transpose(-1, -2)
        return seen * (means + VIEW_NOISE_MAX * level * noise)


def encoder_of(unet: MicroUNet) -> nn.Module:
    """The view encoder that belongs to a network, on the CPU."""
    return ViewEncoder() if unet.config.view == 1 else CoarseViewEncoder()


def view_told(
    encoder: nn.Module, pixels: Tensor, noise: Tensor, level: Tensor, cell: Tensor | None
) -> dict[str, Tensor]:
    """The inputs by which the network knows the sources, by the names of its arguments.

    Args:
        encoder: the encoder that belongs to the network, see `encoder_of`.
        pixels: (B, S, S, 3) uint8, the sources.
        noise: (B, 3, S/2, S/2) standard normal.
        level: (B,) float, the view's noise level, or the level for "no view".
        cell: (B, 2) float on the CPU, see `cell_sides`; None if the view is not a coarse one.
    """
    if cell is None:
        return {"view": encoder(pixels, noise, level), "view_level": level}
    view = encoder(pixels, view_level=level, **view_inputs(noise, cell))
    cell_side = told_cell(cell).to(level.device)
    return {"view": view, "view_level": level, "view_cell": cell_side * (level < NO_VIEW_LEVEL)}


def told_cell(cell: Tensor) -> Tensor:
    """(B, 2) sides of cells -> (B,), the number that the network is given: the side of a square of the same area."""
    return cell.prod(dim=1).sqrt()
