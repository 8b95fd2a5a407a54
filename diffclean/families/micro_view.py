"""The coarse view of the family `micro`, version 2: it withholds resolution as well as precision.

White noise cannot hide a pattern that is coherent over many pixels, because the network averages the noise away. A view
of fewer, larger cells can: whatever lies inside one cell is averaged before anybody sees it. So a coarse view is told
by two numbers, the averaging factor and the noise level, and the network is told both.

A cell is a whole number of the *source's own* pixels. A source of 32 px that was enlarged to a square of 64 px has own
pixels two pixels wide, and its cells begin and end where its own pixels do.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from diffclean.families.micro_model import NO_VIEW_LEVEL, VIEW_DOWNSAMPLING, VIEW_NOISE_MAX, MicroUNet, ViewEncoder

COARSE_FACTORS = (2, 4, 8)
"""Averaging factors that training draws from, in pixels of the model's square."""
COARSE_NOISE_MAX = 0.6
"""The largest noise level that training draws for a coarse view."""
_BANDS = ((0.25, 2), (0.6, 4), (1.0, 8))
"""Largest strength -> averaging factor, see `coarse_look`."""
_NOISE_SLOPE = 3.2
_EDGE = 1e-4
"""Of a cell: a place that is nearer to a cell's beginning lies in it, whatever the division rounds to."""


def coarse_look(strength: float) -> tuple[int, float]:
    """What a strength means to a model with coarse views: (averaging factor, noise level).

    The factor is 2 up to a strength of 0.25, 4 up to 0.6 and 8 above. The noise level is 3.2 * strength / factor.
    Whoever averages four cells into one of twice the side halves their noise. So where the factor doubles and the noise
    halves, what is smooth is hidden exactly as much as before, and what is fine is hidden in addition: the look weakens
    steadily as the strength grows.

    Args:
        strength: in (0, 1].
    """
    factor = next((factor for most, factor in _BANDS if strength <= most), _BANDS[-1][1])
    return factor, _NOISE_SLOPE * strength / factor


def cell_sides(factor: Tensor, own: Tensor, size: int) -> Tensor:
    """Sides of the view's cells: the nearest whole number of own pixels, never finer than the view's grid.

    Args:
        factor: (B,) float averaging factor, in pixels of the square.
        own: (B, 2) float: how many own pixels of the source lie across the square, down and across. A source that is
            larger than the square was reduced, so that its own pixels are those of the square.
        size: side of the square, in pixels.

    Returns:
        (B, 2) float: height and width of a cell, as shares of the square's side.
    """
    own = own.clamp(1, size)
    whole = torch.floor(factor[:, None] * own / size + 0.5).clamp_min(1)
    return (whole / own).clamp(VIEW_DOWNSAMPLING / size, 1)


def view_inputs(noise: Tensor, cell: Tensor) -> dict[str, Tensor]:
    """What the encoder of a coarse view is given beside pixels and level.

    Where cells begin and end is worked out here and not in the encoder's graph: it has to be exact, and a runtime that
    computes in half precision would move the edges.

    Args:
        noise: (B, 3, S/2, S/2) standard normal; a cell takes one of these numbers a channel.
        cell: (B, 2) float on the CPU, see `cell_sides`.

    Returns:
        On the device of `noise`: `noise`, the same number all over a cell, and `down` and `across`, (B, S/2, S) float:
        row i averages the pixels of the cell in which row (or column) i of the view lies.
    """
    count, channels, places, _ = noise.shape
    (down, rows), (across, columns) = (_along(side, places) for side in cell.unbind(1))
    rows, columns = rows.to(noise.device), columns.to(noise.device)
    noise = noise.gather(2, rows[:, None, :, None].expand(count, channels, places, places))
    noise = noise.gather(3, columns[:, None, None, :].expand(count, channels, places, places))
    return {"noise": noise, "down": down.to(noise.device), "across": across.to(noise.device)}


def _along(side: Tensor, places: int) -> tuple[Tensor, Tensor]:
    """Cells along one axis: (B,) sides -> (B, places, S) float averages, (B, places) int64 number of a place's cell."""
    size = VIEW_DOWNSAMPLING * places
    width = (size * side)[:, None]
    middle = (torch.arange(places) + 0.5) * VIEW_DOWNSAMPLING
    number = torch.floor(middle / width + _EDGE)
    begin, pixel = (number * width)[:, :, None], torch.arange(size)
    covered = torch.minimum(pixel + 1, begin + width[:, :, None]) - torch.maximum(pixel, begin)
    covered = covered.clamp_min(0)
    return covered / covered.sum(dim=-1, keepdim=True), number.long()


class CoarseViewEncoder(nn.Module):
    """Average the source over cells and add noise to each cell: the `image_encoder` place. It has no weights."""

    def forward(self, pixels: Tensor, noise: Tensor, view_level: Tensor, down: Tensor, across: Tensor) -> Tensor:
        """Look at the source through few, noisy cells.

        Args:
            pixels: (B, S, S, 3) uint8, the source.
            noise: (B, 3, S/2, S/2), see `view_inputs`.
            view_level: (B,) float in [0, COARSE_NOISE_MAX], the noise on each cell; more than 1 means "no view".
            down: (B, S/2, S) float, see `view_inputs`.
            across: (B, S/2, S) float.

        Returns:
            (B, 3, S/2, S/2) float view, constant inside each cell; zeros where the level is above 1.
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
    """What the network is told of the sources, by the names of its arguments.

    Args:
        encoder: the one that belongs to the network, see `encoder_of`.
        pixels: (B, S, S, 3) uint8, the sources.
        noise: (B, 3, S/2, S/2) standard normal.
        level: (B,) float, the view's noise level, or "no view".
        cell: (B, 2) float on the CPU, see `cell_sides`; None where the view is not a coarse one.
    """
    if cell is None:
        return {"view": encoder(pixels, noise, level), "view_level": level}
    view = encoder(pixels, view_level=level, **view_inputs(noise, cell))
    cell_side = told_cell(cell).to(level.device)
    return {"view": view, "view_level": level, "view_cell": cell_side * (level < NO_VIEW_LEVEL)}


def told_cell(cell: Tensor) -> Tensor:
    """(B, 2) sides of cells -> (B,), the one number that the network is told: the side of a square of the same area."""
    return cell.prod(dim=1).sqrt()
