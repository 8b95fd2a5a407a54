"""Divides a picture that is larger than the model's square into overlapping windows on a canvas.

The canvas is the picture with its longer side reduced to `detail` pixels; it is never enlarged. Windows of the size of
the model's square are spread evenly over it, at most half a square apart. A picture that is no larger than the square,
or a `detail` of the square's own side, gives one window, which is the picture fitted into the square (`data.fit`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from diffclean.data.fit import Fit, OutputSize, Placement, restored, scaled, shrunk
from diffclean.data.pixels import Pixels

Box = tuple[int, int, int, int]

GRID = 8
"""Windows begin at multiples of this number of canvas pixels. It is the largest averaging factor of a coarse view
(`families.micro_view`), so overlapping windows have the same cells, and no window shows what another one hides."""


@dataclass(frozen=True, slots=True)
class Windows:
    """Squares on a canvas, numbered row by row.

    Attributes:
        side: S, the side of a window in pixels.
        tops: the positions where the rows of windows begin.
        lefts: the positions where the columns of windows begin.
    """

    side: int
    tops: tuple[int, ...]
    lefts: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.tops) * len(self.lefts)

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) of the canvas, which the windows cover."""
        return self.tops[-1] + self.side, self.lefts[-1] + self.side

    def cut(self, canvas: Pixels, number: int) -> Pixels:
        """A window of a canvas, (S, S, 3), without a copy."""
        row, column = divmod(number, len(self.lefts))
        top, left = self.tops[row], self.lefts[column]
        return canvas[top : top + self.side, left : left + self.side]


@dataclass(frozen=True, slots=True)
class Layout:
    """Where a picture is on its canvas, and where its windows are.

    Attributes:
        placement: the original size of the picture, and how it is fitted.
        box: (left, top, right, bottom) of the part of the canvas that shows the picture.
        windows: the windows, which cover the canvas.
    """

    placement: Placement
    box: Box
    windows: Windows

    def size(self, wanted: OutputSize) -> tuple[int, int]:
        """(width, height) of the output picture."""
        if wanted.native:
            height, width = self.windows.shape
            return width, height
        kept = self.placement.kept
        return kept if wanted.longest is None else scaled(*kept, wanted.longest)

    @property
    def own(self) -> tuple[float, float]:
        """(vertically, horizontally): the number of its own pixels that the picture has across a window.

        It is at most the side of the window.
        """
        left, top, right, bottom = self.box
        width, height = self.placement.kept
        side = self.windows.side
        return min(side, side * height / (bottom - top)), min(side, side * width / (right - left))


def layout(width: int, height: int, side: int, detail: int, fit: Fit) -> Layout:
    """Plan the windows of a picture.

    Args:
        width: the width of the picture, in pixels.
        height: the height of the picture, in pixels.
        side: S, the side of the model's square.
        detail: the longer side to which the picture is reduced; less than `side` counts as `side`.
        fit: with `SQUASH`, a side that would be shorter than a window is stretched to it; with `PAD`, it is filled with
            edge pixels. With `CROP`, only the central square of the picture is used, in windows.
    """
    placement = Placement(fit, width, height)
    kept = placement.kept
    across, down = scaled(*kept, max(side, min(detail, max(kept))))
    if fit is not Fit.PAD:
        across, down = max(across, side), max(down, side)
    left, top = max(0, side - across) // 2, max(0, side - down) // 2
    windows = Windows(side, _starts(down, side), _starts(across, side))
    return Layout(placement, (left, top, left + across, top + down), windows)


def to_canvas(image: Pixels, plan: Layout) -> Pixels:
    """Put a picture on its canvas (Lanczos). Beyond the picture, its edge pixels are repeated.

    Args:
        image: (h, w, 3) uint8, the picture, which may already be smaller than `plan` says (see `decode_for`).
        plan: the layout of the picture.

    Returns:
        (H, W, 3) uint8 of the shape `plan.windows.shape`.
    """
    if plan.placement.fit is Fit.CROP:
        side = min(image.shape[:2])
        top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
        image = image[top : top + side, left : left + side]
    left, top, right, bottom = plan.box
    height, width = plan.windows.shape
    inner = shrunk(image, right - left, bottom - top)
    if inner.shape[:2] == (height, width):
        return inner
    return np.pad(inner, ((top, height - bottom), (left, width - right), (0, 0)), mode="edge")


def from_canvas(canvas: Pixels, plan: Layout, size: OutputSize) -> Pixels:
    """Undo `to_canvas`, except for what a crop left out; a picture that grows is resampled bicubically.

    Args:
        canvas: (H, W, 3) uint8 of the shape `plan.windows.shape`.
        plan: the layout of the picture.
        size: the size wanted; native is the canvas as it is.

    Returns:
        (h, w, 3) uint8.
    """
    if size.native:
        return canvas
    left, top, right, bottom = plan.box
    return restored(canvas[top:bottom, left:right], *plan.size(size))


def _starts(length: int, side: int) -> tuple[int, ...]:
    """The positions where windows begin along an axis of `length` pixels.

    They are multiples of `GRID` and at most half a window apart.
    """
    last = -(-max(0, length - side) // GRID)  # in units of GRID, like everything below
    step = max(1, side // 2 // GRID)
    gaps = -(-last // step)
    return (*(GRID * (number * last // gaps) for number in range(gaps)), GRID * last)
