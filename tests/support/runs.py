"""What tests of runs that are stopped, killed and compared share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from diffclean.progress import NoProgress


def files(out: Path) -> dict[str, bytes]:
    """The images and the manifest of a run, by their paths in it."""
    found = [*out.rglob("*.png"), *out.glob("*.parquet")]
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in found}


class At(NoProgress):
    """Does something once so many are finished."""

    def __init__(self, count: int, act: Callable[[], Any]) -> None:
        self.left = count
        self.act = act

    def advance(self, count: int = 1, **figures: float) -> None:
        before, self.left = self.left, self.left - count
        if before > 0 >= self.left:
            self.act()
