"""What an executor is given and what it owes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from threading import Event
from typing import Any, Protocol, TypeVar

Job = TypeVar("Job")
Outcome = TypeVar("Outcome")
Job_contra = TypeVar("Job_contra", contravariant=True)
Outcome_co = TypeVar("Outcome_co", covariant=True)


@dataclass(frozen=True)
class Share:
    """What a station may use of the machine that it is on.

    Attributes:
        threads: of the engine; None: all cores.
        workers: threads that read, and as many that write; None: one a core.
        processes: how many do the work side by side, this one among them; memory is divided by it.
        alone: the descriptor of a file that all of them have open; who locks it may use more memory than its part.
            None: there is one process.
    """

    threads: int | None = None
    workers: int | None = None
    processes: int = 1
    alone: int | None = None


class Station(Protocol[Job_contra, Outcome_co]):
    """A place where jobs are done, with everything open that this needs (an engine, say)."""

    def work(self, jobs: Iterator[Job_contra], tell: Callable[[Sequence[Outcome_co]], None], stop: Event) -> None:
        """Do jobs until there are no more.

        Args:
            jobs: is asked for the next one as room appears.
            tell: is given outcomes when they are safe: what is told is never done again. From one thread at a time.
            stop: when set, what is in flight is finished and told, then this returns.
        """


class Task(Protocol[Job_contra, Outcome_co]):
    """A run, as it is sent to where it is done: it must survive pickling where the executor works `elsewhere`."""

    def open(self, share: Share) -> Station[Job_contra, Outcome_co]:
        """Open a station; called once in each place, from the thread that then works at it."""


class Executor(Protocol):
    """Does all jobs of a task, each once, and comes back when they are done or the run was stopped.

    Attributes:
        elsewhere: whether tasks, jobs and outcomes leave this process, and so are pickled.
    """

    elsewhere: bool

    def run(
        self,
        task: Task[Job, Outcome],
        jobs: Iterable[Job],
        record: Callable[[Sequence[Outcome]], None],
        began: Callable[[], None],
        stop: Event,
    ) -> None:
        """Do the work.

        Args:
            task: opens stations.
            jobs: in the order in which they should be begun; may be longer than memory, and is asked from one thread
                at a time.
            record: is given what stations tell, from one thread at a time. Whatever it has recorded is done, also when
                this raises.
            began: called once, when the first station is open.
            stop: when set, what is in flight is finished and recorded, then this returns. Jobs may be left.

        Raises:
            DiffcleanError: what a station raised (a full disk, say), or a station was lost.
            Exception: a bug in a station.
        """


AnyTask = Task[Any, Any]
"""Where the kind of job does not matter."""
