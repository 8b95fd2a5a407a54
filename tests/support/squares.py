"""A task that has nothing to do with images: it squares numbers. In a module of its own, so that children find it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from threading import Event

from diffclean.errors import DiffcleanError
from diffclean.execution.base import Share

Square = tuple[int, int, int | None]
"""A number's square, the process that made it, and how many threads it was given."""


@dataclass(frozen=True)
class Squares:
    """Two numbers at a time.

    Attributes:
        fails_at: a number that it refuses.
        dies_at: a number that ends the process without a word; as often as it is tried.
        home: a process; no other one can do anything.
    """

    fails_at: int = -1
    dies_at: int = -1
    home: int | None = None

    def open(self, share: Share) -> SquareStation:
        return SquareStation(self, share)

    def check(self) -> None:
        if self.home not in (None, os.getpid()):
            raise DiffcleanError("It is not at home.", "Stay at home.")

    def rest(self, jobs: Sequence[int], outcomes: Sequence[Square]) -> list[int | None]:
        made = {square for square, _, _ in outcomes}
        return [None if number * number in made else number for number in jobs]


@dataclass(frozen=True)
class SquareStation:
    task: Squares
    share: Share

    def work(self, jobs: Iterator[int], tell: Callable[[Sequence[Square]], None], stop: Event) -> None:
        while not stop.is_set() and (pair := list(islice(jobs, 2))):
            if self.task.fails_at in pair:
                raise DiffcleanError(f"{self.task.fails_at} cannot be squared.", "Leave it out.")
            if self.task.dies_at in pair:
                os._exit(7)
            tell([(number * number, os.getpid(), self.share.threads) for number in pair])
