"""The work of `variate` as an executor takes it: a task that opens a station wherever the work is to be done."""

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
from diffclean.variation.pipeline import Stages, stream
from diffclean.variation.settings import Opened, Settings
from diffclean.variation.work import Job, Work

_SMALL_PX = 128
"""Of a larger square one batch has work enough for all cores."""
_MOST = 8
"""More would only cost memory: each then has several cores."""
_BYTES_EACH = 2**30
_WORTH_S = 20
"""A process takes some three seconds to start."""
_MOST_WORKERS = 8


@dataclass(frozen=True, slots=True)
class Ran:
    """What a station tells beside finished rows: that a batch of so many windows was run."""

    windows: int


@dataclass(frozen=True)
class VariationStation:
    """An open engine, with all that stands before and behind it.

    Attributes:
        work: reads and writes.
        opened: the engine.
        workers: threads that read, and as many that write.
    """

    work_on: Work
    opened: Opened
    workers: int

    def work(self, jobs: Iterator[Job], tell: Callable[[Sequence[Row | Ran]], None], stop: Event) -> None:
        """See `Station.work`: rows are told when their files are on disk, and each batch when it was run."""
        telling = Lock()

        def commit(rows: Sequence[Row]) -> None:
            self.work_on.sink.sync()
            with telling:
                tell(rows)

        def ran(windows: int) -> None:
            with telling:
                tell([Ran(windows)])

        batch = self.opened.settings.batch
        assert batch is not None
        stages = Stages(self.work_on.prepare, self.opened.sampler(), self.opened.fallback, commit, ran)
        stream(jobs, stages, batch, self.workers, stop)


@dataclass(frozen=True)
class LocalTask:
    """For an executor in this process: the engine that is open already is the one that works."""

    work: Work
    opened: Opened

    def open(self, share: Share) -> VariationStation:
        """See `Task.open`."""
        workers = share.workers or min(_MOST_WORKERS, max(1, int(usable_cores())))
        return VariationStation(self.work, self.opened, workers)


@dataclass(frozen=True)
class SentTask:
    """For an executor elsewhere: everything is opened anew there, by its description.

    Attributes:
        source, sink: what is read and written.
        recipe, settings: resolved.
        directory, runtime, precision, fingerprint: of the engine; the one that is opened must be the same.
    """

    source: Description
    sink: Description
    recipe: Recipe
    settings: Settings
    directory: Path
    runtime: str
    precision: str
    fingerprint: str

    def open(self, share: Share) -> VariationStation:
        """See `Task.open`.

        Raises:
            DiffcleanError: the engine is another one by now.
        """
        IN_FLIGHT.share(share.processes, share.alone)
        engine = open_compiled(self.directory, self.runtime, self.precision, share.threads)
        if engine.manifest.fingerprint != self.fingerprint:
            raise DiffcleanError(f"The engine in {self.directory} was changed while it was in use.", "Start again.")
        opened = Opened(self.recipe, engine, self.settings, share.threads)
        size = engine.manifest.image_size
        work = Work(open_source(self.source), open_sink(self.sink), self.settings, size, self.fingerprint)
        return LocalTask(work, opened).open(share)


def sent_task(work: Work, opened: Opened) -> SentTask | None:
    """The task for an executor elsewhere; None: the source or the sink lives in this process alone."""
    source, sink, engine = work.source.describe(), work.sink.describe(), opened.engine
    if source is None or sink is None:
        return None
    return SentTask(
        source,
        sink,
        opened.recipe,
        opened.settings,
        engine.directory,
        engine.runtime.name,
        engine.runtime.precision,
        engine.manifest.fingerprint,
    )


def executor_for(opened: Opened, left: int, processes: int | None, share: Share) -> Executor:
    """Who is quickest for `left` windows.

    Args:
        opened: the engine.
        left: how many windows are to be made.
        processes: how many processes the user asked for; None: as many as are quickest.
        share: of all processes together.
    """
    count = processes or quickest(opened, left)
    return Processes(count, share) if count > 1 and left else Here(share)


def quickest(opened: Opened, left: int) -> int:
    """How many processes are quickest for `left` windows."""
    if opened.engine.runtime.device != "cpu" or opened.engine.manifest.image_size > _SMALL_PX:
        return 1
    assert opened.settings.steps is not None
    seconds = left * (2 + opened.settings.steps) / 1000  # of two cores of 2023; only the order of magnitude matters
    if seconds < _WORTH_S:
        return 1
    available = memory_bytes()["available"]
    room = _MOST if available is None else available // _BYTES_EACH
    return int(max(1, min(opened.threads or usable_cores(), _MOST, room)))
