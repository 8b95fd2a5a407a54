"""The Protocols of executors, tasks and stations."""

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
    """The part of a machine that a station may use.

    Attributes:
        threads: the number of engine threads; None stands for all cores.
        workers: the number of reading threads, and of writing threads; None stands for one for each core.
        processes: the number of processes that share the work, including this one; memory is divided by it.
        alone: the descriptor of a file that all of them have open; the process that locks it may use more memory than
            its part. None if there is only one process.
    """

    threads: int | None = None
    workers: int | None = None
    processes: int = 1
    alone: int | None = None


class Station(Protocol[Job_contra, Outcome_co]):
    """A place where jobs are done, with everything open that they need, such as an engine."""

    def work(self, jobs: Iterator[Job_contra], tell: Callable[[Sequence[Outcome_co]], None], stop: Event) -> None:
        """Do jobs until there are no more.

        Args:
            jobs: an iterator that is asked for the next job as soon as there is room.
            tell: receives outcomes when they are safe on disk; a job whose outcome was told is never done again. It is
                called from one thread at a time.
            stop: when set, the current jobs are finished and told, then this returns.
        """


class Task(Protocol[Job, Outcome]):
    """A run in the form that is sent to the place where it is done.

    It must be picklable if the executor works `elsewhere`.
    """

    def open(self, share: Share) -> Station[Job, Outcome]:
        """Open a station. This is called once in each place, from the thread that then works there."""

    def check(self) -> None:
        """Check, on another machine and before `open`, that everything that the task needs is there.

        Raises:
            DiffcleanError: something is missing there, or is not the same as where the run was started.
        """

    def rest(self, jobs: Sequence[Job], outcomes: Sequence[Outcome]) -> list[Job | None]:
        """What is left of each of these jobs after these outcomes; None stands for nothing.

        An executor that gives the jobs of a lost station to another one asks this.
        """


class Executor(Protocol):
    """Does all jobs of a task, each once, and returns when they are done or the run was stopped.

    Attributes:
        elsewhere: whether tasks, jobs and outcomes leave this process and are therefore pickled.
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
            jobs: the jobs, in the order in which they should be begun. There may be more than fit into memory; the
                iterator is used from one thread at a time.
            record: receives what stations tell, from one thread at a time. A job that it has recorded is done, even if
                this function raises afterwards.
            began: called once, when the first station is open.
            stop: when set, the current jobs are finished and recorded, then this returns. Some jobs may be left.

        Raises:
            DiffcleanError: an error that a station raised (for example a full disk), or a station was lost.
            Exception: a bug in a station.
        """


AnyTask = Task[Any, Any]
"""A task, where the kind of job does not matter."""
