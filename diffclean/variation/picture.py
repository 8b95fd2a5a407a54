"""One variation on its way through the sampler: its input, and its windows as they are finished."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from diffclean.data.manifest import Row
from diffclean.data.pixels import Pixels
from diffclean.families.seeds import attempt_seed
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
        attempt: 0, or how often the quality gate had the picture made again.
        best: the greatest similarity of the earlier attempts, and the seed that it was made with.

    Attributes:
        seed: the seed of this attempt.
        finite: whether all values of the windows so far were finite.
    """

    def __init__(self, slot: Slot, attempt: int = 0, best: tuple[float, int] | None = None) -> None:
        self.slot = slot
        self.attempt = attempt
        self.best = best
        self.seed = attempt_seed(slot.row.seed, attempt)
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

    @property
    def whole(self) -> Pixels:
        """The complete picture, (H, W, 3) uint8 of the shape of the canvas."""
        whole = self._whole if self._blend is None else self._blend.canvas
        assert whole is not None
        return whole

    def finish(self) -> Row:
        """Write the complete picture, see `Slot.finish`. The row has the seed that the picture was made with."""
        row = self.slot.finish(self.whole)
        return replace(row, seed=self.seed) if self.attempt else row
