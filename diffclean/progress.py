"""How long work reports itself, without knowing who listens. The command line draws it; tests count it."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """One task at a time: `begin`, any number of `advance`, `end`."""

    def begin(self, what: str, total: int | None, unit: str = "images", done: int = 0) -> None:
        """Start a task of `total` units (None: unknown), `done` of which were finished earlier (a resumed run)."""

    def advance(self, count: int = 1, **figures: float) -> None:
        """`count` more units are finished; `figures` (loss, accuracy) are shown beside the bar."""

    def end(self) -> None:
        """The task is over, finished or not."""


class NoProgress:
    """A listener that hears nothing: the default of every function that takes a `Progress`."""

    def begin(self, what: str, total: int | None, unit: str = "images", done: int = 0) -> None:
        """Ignore it."""

    def advance(self, count: int = 1, **figures: float) -> None:
        """Ignore it."""

    def end(self) -> None:
        """Ignore it."""
