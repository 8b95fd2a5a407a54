"""One variation on its way through the sampler: what goes in, and its windows as they come back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from diffclean.data.manifest import Row
from diffclean.data.pixels import Pixels
from diffclean.variation.blend import Blend
from diffclean.variation.windows import Windows


@dataclass(frozen=True)
class Slot:
    """One variation that is to be made: the pixels that go in, and the row that will be written about it.

    Attributes:
        row: what is known so far.
        canvas: (H, W, 3) uint8, what the windows are cut from; with no `windows`, the (S, S, 3) square itself.
        finish: encodes and writes what came out, of the canvas's shape, and returns the finished row.
        own: how many pixels of its own the source has across a window, down and across (`Layout.own`); None: as many
            as the window has.
        windows: None: the canvas is the only one.
    """

    row: Row
    canvas: Pixels
    finish: Callable[[Pixels], Row]
    own: tuple[float, float] | None = None
    windows: Windows | None = None

    @property
    def count(self) -> int:
        """How many windows it has."""
        return len(self.windows) if self.windows is not None else 1


class Picture:
    """A slot whose windows are being made. They are cut when they are asked for, and come back in order.

    Args:
        slot: see `Slot`.
    """

    def __init__(self, slot: Slot) -> None:
        self.slot = slot
        self.finite = True
        self._blend = Blend(slot.windows) if slot.windows is not None and slot.count > 1 else None
        self._whole: Pixels | None = None

    def cut(self, number: int) -> Pixels:
        """(S, S, 3) uint8, a window of the source."""
        windows = self.slot.windows
        return self.slot.canvas if windows is None else windows.cut(self.slot.canvas, number)

    def add(self, pixels: Pixels, finite: bool) -> None:
        """The next window that came back, (S, S, 3) uint8, and whether all its values were finite."""
        self.finite &= finite
        if self._blend is None:
            self._whole = pixels
        else:
            self._blend.add(pixels)

    def finish(self) -> Row:
        """Write the whole picture; see `Slot.finish`."""
        whole = self._whole if self._blend is None else self._blend.canvas
        assert whole is not None
        return self.slot.finish(whole)
