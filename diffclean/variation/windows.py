"""How a picture larger than the model's square is looked at: in overlapping windows on a canvas.

The canvas is the picture with its longer side brought down to `detail` pixels, and never enlarged. Windows of the
model's square are spread evenly over it, at most half a square apart. A picture that is no larger than the square, or a
`detail` of the square's own side, gives one window, which is the picture fitted into the square (`data.fit`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from diffclean.data.fit import Fit, OutputSize, Placement, restored, scaled, shrunk
from diffclean.data.pixels import Pixels

Box = tuple[int, int, int, int]

GRID = 8
"""Windows begin at multiples of this many canvas pixels. It is the largest averaging factor of a coarse view
(`families.micro_view`), so the cells of windows that overlap are the same cells: no window shows what another hides."""


@dataclass(frozen=True, slots=True)
class Windows:
    """Squares on a canvas, numbered row by row.

    Attributes:
        side: S, of a window, in pixels.
        tops: where each row of windows begins.
        lefts: where each column of windows begins.
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
        """(S, S, 3) of a canvas, without a copy."""
        row, column = divmod(number, len(self.lefts))
        top, left = self.tops[row], self.lefts[column]
        return canvas[top : top + self.side, left : left + self.side]


@dataclass(frozen=True, slots=True)
class Layout:
    """Where one picture lies on its canvas, and where its windows are.

    Attributes:
        placement: the picture's own size, and how it is fitted.
        box: (left, top, right, bottom) of what is kept of the picture, on the canvas.
        windows: they cover the canvas.
    """

    placement: Placement
    box: Box
    windows: Windows

    def size(self, wanted: OutputSize) -> tuple[int, int]:
        """(width, height) of the picture that comes out."""
        if wanted.native:
            height, width = self.windows.shape
            return width, height
        kept = self.placement.kept
        return kept if wanted.longest is None else scaled(*kept, wanted.longest)

    @property
    def own(self) -> tuple[float, float]:
        """(down, across): how many pixels of its own the picture has across a window; at most the window's side."""
        left, top, right, bottom = self.box
        width, height = self.placement.kept
        side = self.windows.side
        return min(side, side * height / (bottom - top)), min(side, side * width / (right - left))


def layout(width: int, height: int, side: int, detail: int, fit: Fit) -> Layout:
    """Plan a picture.

    Args:
        width: of the picture, in pixels.
        height: of the picture, in pixels.
        side: S, of the model's square.
        detail: the longer side at which the picture is looked at; less than `side` is taken for `side`.
        fit: `SQUASH`: a side that would be shorter than a window is stretched to it. `PAD`: it is filled up with edge
            pixels instead. `CROP`: the picture's centre square, and windows over that.
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
    """Put a picture on its canvas (Lanczos); beyond the picture its edge pixels are repeated.

    Args:
        image: (h, w, 3) uint8, the picture, perhaps already smaller than `plan` says (see `decode_for`).
        plan: the picture's.

    Returns:
        (H, W, 3) uint8 of `plan.windows.shape`.
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
    """Undo `to_canvas` (bicubic where the picture grows), except for what a crop left out.

    Args:
        canvas: (H, W, 3) uint8 of `plan.windows.shape`.
        plan: the picture's.
        size: the size wanted; native is the canvas as it is.

    Returns:
        (h, w, 3) uint8.
    """
    if size.native:
        return canvas
    left, top, right, bottom = plan.box
    return restored(canvas[top:bottom, left:right], *plan.size(size))


def _starts(length: int, side: int) -> tuple[int, ...]:
    """Where windows begin along an axis of `length` pixels: multiples of `GRID`, at most half a window apart."""
    last = -(-max(0, length - side) // GRID)  # in units of GRID, as all below
    step = max(1, side // 2 // GRID)
    gaps = -(-last // step)
    return (*(GRID * (number * last // gaps) for number in range(gaps)), GRID * last)
