"""The work of `variate` in the form that executors take: a task that opens a station wherever the work is done."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Lock

from diffclean.data.in_flight import IN_FLIGHT
from diffclean.data.manifest import Row
from diffclean.data.registry import open_sink, open_source
from diffclean.data.sources import Description
from diffclean.environment import memory_bytes, usable_cores
from diffclean.errors import DiffcleanError
from diffclean.execution.base import Executor, Share
from diffclean.execution.here import Here
from diffclean.execution.processes import Processes
from diffclean.export.opening import open_compiled
from diffclean.families.registry import Recipe
from diffclean.variation.gate import Gate
from diffclean.variation.likeness import likeness_for
from diffclean.variation.pipeline import Stages, stream
from diffclean.variation.settings import Located, Opened, Settings
from diffclean.variation.sight import Sight
from diffclean.variation.work import Job, Work

_SMALL_PX = 128
"""The largest side of a model's square for which several processes are faster. With a larger square, one batch has
enough work for all cores."""
_MOST = 8
"""The largest number of processes. More would only cost memory, since each has several cores then."""
_BYTES_EACH = 2**30
_WORTH_S = 20
"""The seconds of work from which several processes are worth it; a process takes about three seconds to start."""
_MOST_WORKERS = 8


@dataclass(frozen=True, slots=True)
class Ran:
    """Tells what a station has done; sent in addition to finished rows.

    Attributes:
        windows: the number of windows in a batch that it has run.
        engine_s: the seconds that the engine took for the batch.
        elapsed_s: the seconds since the batch before or, for the first one, since the station was opened.
        again: the number of variations that the quality gate has it make again.
        comparing_s: the seconds that comparing variations with their sources took.
    """

    windows: int = 0
    engine_s: float = 0.0
    elapsed_s: float = 0.0
    again: int = 0
    comparing_s: float = 0.0


@dataclass(frozen=True)
class VariationStation:
    """An open engine, with the work before and after it.

    Attributes:
        work_on: reads and writes images.
        opened: the engine.
        workers: the number of reading threads, and of writing threads.
    """

    work_on: Work
    opened: Opened
    workers: int

    def work(self, jobs: Iterator[Job], tell: Callable[[Sequence[Row | Ran]], None], stop: Event) -> None:
        """See `Station.work`. Rows are reported when their files are on disk, and each batch when it has been run."""
        telling = Lock()

        def commit(rows: Sequence[Row]) -> None:
            self.work_on.sink.sync()
            with telling:
                tell(rows)

        def ran(windows: int, engine_s: float, elapsed_s: float) -> None:
            with telling:
                tell([Ran(windows, engine_s, elapsed_s)])

        batch = self.opened.settings.batch
        assert batch is not None

        def compared(again: int, seconds: float) -> None:
            with telling:
                tell([Ran(again=again, comparing_s=seconds)])

        gate = gate_for(self.opened, compared)
        stages = Stages(self.work_on.prepare, self.opened.sampler(), self.opened.fallback, commit, ran, gate)
        stream(jobs, stages, batch, self.workers, stop)


@dataclass(frozen=True)
class LocalTask:
    """A task for an executor in this process, which uses the engine that is open already."""

    work: Work
    opened: Opened

    def open(self, share: Share) -> VariationStation:
        """See `Task.open`."""
        workers = share.workers or min(_MOST_WORKERS, max(1, int(usable_cores())))
        return VariationStation(self.work, self.opened, workers)

    def check(self) -> None:
        """Everything is here."""

    def rest(self, jobs: Sequence[Job], outcomes: Sequence[Row | Ran]) -> list[Job | None]:
        """See `rest_of`."""
        return rest_of(jobs, outcomes)


@dataclass(frozen=True)
class SentTask:
    """A task for an executor elsewhere, where everything is opened again from its description.

    Attributes:
        source, sink: descriptions of the source and the sink.
        recipe, settings: the recipe, and the resolved settings.
        directory, runtime, precision, fingerprint: describe the engine; the one that is opened must be the same.
        sight: what must be seen wherever the work is done; None if that is this machine.
    """

    source: Description
    sink: Description
    recipe: Recipe
    settings: Settings
    directory: Path
    runtime: str
    precision: str
    fingerprint: str
    sight: Sight | None = None

    def check(self) -> None:
        """See `Task.check`.

        Raises:
            DiffcleanError: this machine does not see the source, the output or the engine.
        """
        if self.sight is not None:
            self.sight.check(self.source, self.sink, self.directory, self.fingerprint)

    def rest(self, jobs: Sequence[Job], outcomes: Sequence[Row | Ran]) -> list[Job | None]:
        """See `rest_of`."""
        return rest_of(jobs, outcomes)

    def open(self, share: Share) -> VariationStation:
        """See `Task.open`.

        Raises:
            DiffcleanError: the engine has changed in the meantime.
        """
        IN_FLIGHT.share(share.processes, share.alone)
        engine = open_compiled(self.directory, self.runtime, self.precision, share.threads)
        if engine.manifest.fingerprint != self.fingerprint:
            raise DiffcleanError(
                f"The engine in {self.directory} was changed while it was in use.", "Type the same command again."
            )
        opened = Opened(self.recipe, engine, self.settings, share.threads)
        size = engine.manifest.image_size
        work = Work(open_source(self.source), open_sink(self.sink), self.settings, size, self.fingerprint)
        return LocalTask(work, opened).open(share)


def gate_for(opened: Opened, tell: Callable[[int, float], None]) -> Gate | None:
    """The quality gate that the settings ask for; None if they ask for none."""
    settings = opened.settings
    if settings.min_similarity is None:
        return None
    assert settings.batch is not None
    return Gate(settings.min_similarity, likeness_for(opened.engine, settings.batch), tell)


def rest_of(jobs: Sequence[Job], outcomes: Sequence[Row | Ran]) -> list[Job | None]:
    """What is left of each job after these outcomes: the variants without a row; None for a job with none left."""
    made = {(row.key, row.variant) for row in outcomes if isinstance(row, Row)}
    left = ((item, [each for each in variants if (item.key, each) not in made]) for item, variants in jobs)
    return [(item, variants) if variants else None for item, variants in left]


def sent_task(work: Work, located: Located, identity: str) -> SentTask | None:
    """The task for an executor elsewhere; None if the source or the sink exists in this process only.

    Args:
        work: the work.
        located: the engine.
        identity: `Engine.identity` of the engine that is to be used.
    """
    source, sink = work.source.describe(), work.sink.describe()
    if source is None or sink is None:
        return None
    _, runtime, precision = identity.split("/")
    return SentTask(
        source, sink, located.recipe, work.settings, located.directory, runtime, precision, work.fingerprint
    )


def executor_for(opened: Opened, left: int, processes: int | None, share: Share) -> Executor:
    """Choose the executor that is fastest for `left` windows.

    Args:
        opened: the engine.
        left: the number of windows that are to be made.
        processes: the number of processes that the user asked for; None stands for the fastest number.
        share: the share of the machine that all processes have together.
    """
    count = processes or quickest(opened, left)
    return Processes(count, share) if count > 1 and left else Here(share)


def quickest(opened: Opened, left: int) -> int:
    """The number of processes that is fastest for `left` windows."""
    if opened.engine.runtime.device != "cpu" or opened.engine.manifest.image_size > _SMALL_PX:
        return 1
    assert opened.settings.steps is not None
    seconds = left * (2 + opened.settings.steps) / 1000  # on two cores of 2023; only the order of magnitude matters
    if seconds < _WORTH_S:
        return 1
    available = memory_bytes()["available"]
    room = _MOST if available is None else available // _BYTES_EACH
    return int(max(1, min(opened.threads or usable_cores(), _MOST, room)))
