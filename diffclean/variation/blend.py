"""Blends windows into one picture without seams.

A window has its full weight at its middle and almost none at its edges: a raised cosine in both directions. Windows are
added in the order of their numbers, in float, so that the bytes do not depend on the batch that a window was made in.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from diffclean.data.pixels import Pixels
from diffclean.variation.windows import Windows

Floats = NDArray[np.float32]


class Blend:
    """A canvas that is put together from its windows.

    Besides the canvas, it holds one row of windows in float, whatever the size of the picture.

    Args:
        windows: the windows of the canvas.
    """

    def __init__(self, windows: Windows) -> None:
        height, width = windows.shape
        self.canvas: Pixels = np.empty((height, width, 3), np.uint8)
        self._windows = windows
        self._down, self._across = weights(windows.tops, windows.side), weights(windows.lefts, windows.side)
        self._strip: Floats = np.zeros((windows.side, width, 3), np.float32)
        self._added = 0

    def add(self, pixels: Pixels) -> None:
        """Add the next window, (S, S, 3) uint8. After the last one, `canvas` is complete."""
        row, column = divmod(self._added, len(self._windows.lefts))
        left, side = self._windows.lefts[column], self._windows.side
        weight = self._down[row][:, None] * self._across[column]
        self._strip[:, left : left + side] += weight[:, :, None] * pixels
        self._added += 1
        if column == len(self._windows.lefts) - 1:
            self._settle(row)

    def _settle(self, row: int) -> None:
        """Store the lines that no later row of windows reaches, and move the strip on."""
        tops, side = self._windows.tops, self._windows.side
        top = tops[row]
        lines = tops[row + 1] - top if row + 1 < len(tops) else side
        self.canvas[top : top + lines] = np.rint(self._strip[:lines]).clip(0, 255)
        self._strip[: side - lines] = self._strip[lines:].copy()
        self._strip[side - lines :] = 0


@lru_cache(maxsize=64)
def weights(starts: tuple[int, ...], side: int) -> Floats:
    """The weight of each window along one axis.

    Args:
        starts: the positions where the windows begin.
        side: the side of a window.

    Returns:
        (len(starts), side) float32, read only; at every pixel of the axis the weights add up to 1.
    """
    bell = np.sin(np.pi * (np.arange(side) + 0.5) / side) ** 2
    total = np.zeros(starts[-1] + side)
    for start in starts:
        total[start : start + side] += bell
    made = np.stack([bell / total[start : start + side] for start in starts]).astype(np.float32)
    made.flags.writeable = False
    return made
