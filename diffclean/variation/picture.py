"""One variation on its way through the sampler: its input, and its windows as they are finished."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from diffclean.data.manifest import Row
from diffclean.data.pixels import Pixels
from diffclean.variation.blend import Blend
from diffclean.variation.windows import Windows


@dataclass(frozen=True)
class Slot:
    """A variation that is to be made: its input pixels, and the row that will be written about it.

    Attributes:
        row: what is known about the variation so far.
        canvas: (H, W, 3) uint8, the canvas that the windows are cut from; without `windows`, the (S, S, 3) square
            itself.
        finish: encodes and writes the result, which has the shape of the canvas, and returns the finished row.
        own: how many pixels of its own the source has across a window, vertically and horizontally (`Layout.own`); None
            stands for as many as the window has.
        windows: the windows; None if the canvas is the only one.
    """

    row: Row
    canvas: Pixels
    finish: Callable[[Pixels], Row]
    own: tuple[float, float] | None = None
    windows: Windows | None = None

    @property
    def count(self) -> int:
        """The number of its windows."""
        return len(self.windows) if self.windows is not None else 1


class Picture:
    """A slot whose windows are being made. They are cut when they are needed, and are added in order.

    Args:
        slot: the slot.
    """

    def __init__(self, slot: Slot) -> None:
        self.slot = slot
        self.finite = True
        self._blend = Blend(slot.windows) if slot.windows is not None and slot.count > 1 else None
        self._whole: Pixels | None = None

    def cut(self, number: int) -> Pixels:
        """A window of the source, (S, S, 3) uint8."""
        windows = self.slot.windows
        return self.slot.canvas if windows is None else windows.cut(self.slot.canvas, number)

    def add(self, pixels: Pixels, finite: bool) -> None:
        """Add the next finished window, (S, S, 3) uint8, with the flag whether all its values were finite."""
        self.finite &= finite
        if self._blend is None:
            self._whole = pixels
        else:
            self._blend.add(pixels)

    def finish(self) -> Row:
        """Write the complete picture, see `Slot.finish`."""
        whole = self._whole if self._blend is None else self._blend.canvas
        assert whole is not None
        return self.slot.finish(whole)
