"""The executor that does all work in this process, with threads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from threading import Event

from diffclean.execution.base import Job, Outcome, Share, Task


@dataclass(frozen=True)
class Here:
    """One station in this process.

    Attributes:
        share: the part of this machine that the station may use.
    """

    share: Share
    elsewhere = False

    def run(
        self,
        task: Task[Job, Outcome],
        jobs: Iterable[Job],
        record: Callable[[Sequence[Outcome]], None],
        began: Callable[[], None],
        stop: Event,
    ) -> None:
        """See `Executor.run`."""
        station = task.open(self.share)
        began()
        station.work(iter(jobs), record, stop)
