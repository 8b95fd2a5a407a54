"""The interface through which long work reports its progress. It does not know who listens: a bar, a log or a test."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """A listener for one task at a time: `begin`, any number of `advance`, `end`."""

    def begin(self, what: str, total: int | None, unit: str = "images", done: int = 0) -> None:
        """Start a task of `total` units (None if unknown), of which an earlier run finished `done`."""

    def advance(self, count: int = 1, **figures: float) -> None:
        """Report `count` more finished units; `figures` (such as loss and accuracy) are shown beside the bar."""

    def end(self) -> None:
        """Report that the task is over, whether or not it is finished."""


class NoProgress:
    """A listener that ignores everything; the default of every function that takes a `Progress`."""

    def begin(self, what: str, total: int | None, unit: str = "images", done: int = 0) -> None:
        """Do nothing."""

    def advance(self, count: int = 1, **figures: float) -> None:
        """Do nothing."""

    def end(self) -> None:
        """Do nothing."""
