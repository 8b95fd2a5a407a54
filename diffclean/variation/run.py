"""One run of `variate`: opens the engine if there is something to do, has the work done, and counts the results."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from threading import Event
from typing import Any

from diffclean.data.journal import Journal
from diffclean.data.manifest import Row, Status
from diffclean.data.run_record import RUN_FILE, other_run, read_run
from diffclean.data.sinks import Sink
from diffclean.data.sources import Source
from diffclean.data.survey import Comparison
from diffclean.errors import Interrupted
from diffclean.execution.base import Share
from diffclean.progress import Progress
from diffclean.variation.cost import Cost, cost_of, in_words, loss_in_words
from diffclean.variation.labels import note_on
from diffclean.variation.settings import Located, Opened
from diffclean.variation.task import LocalTask, Ran, executor_for, sent_task
from diffclean.variation.work import Work

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Concurrency:
    """How the work is distributed; this does not change the output.

    Attributes:
        processes: the number of processes, see `execution.processes`; None stands for the fastest number.
        workers: the number of reading threads, and of writing threads, in all processes together; None stands for one
            for each core, at most 8.
        threads: the number of engine threads in all processes together; None stands for all cores.
    """

    processes: int | None = 1
    workers: int | None = None
    threads: int | None = None


class Run:
    """One run: has the work done, and counts the results.

    If a run may have nothing left to do, it takes the identity of the engine from the existing record, and opens the
    engine only if there is something to do after all.

    Args:
        images: the source.
        sink: the sink.
        located: the engine.
        concurrency: how the work is distributed.
        progress: is advanced for every variation.

    Attributes:
        engine: `Engine.identity` of the open engine, or as recorded.
        made: the number of variations that this run made.
        failed: the rows of the variations that failed.
        windows: the number of windows that this run regenerated.
        started: the time when the work began, from `time.monotonic`.
    """

    def __init__(
        self, images: Source, sink: Sink, located: Located, concurrency: Concurrency, progress: Progress
    ) -> None:
        self.images, self.sink, self.located = images, sink, located
        self.concurrency, self.progress = concurrency, progress
        self.made = 0
        self.failed: list[Row] = []
        self.windows = 0
        self.started = time.monotonic()
        self._cost = Cost()
        self._opened: Opened | None = None
        recorded = read_run(sink.records).identity.get("engine") if sink.records.read(RUN_FILE) else None
        self.engine = str(recorded) if located.could_be(recorded) else ""
        if not self.engine:
            self.open()

    def open(self) -> Opened:
        """Open the engine, once.

        Raises:
            DiffcleanError: it is not the engine with which the run was started.
        """
        if self._opened is None:
            self._opened = self.located.open(self.concurrency.threads)
            found = self._opened.engine.identity
            if self.engine not in ("", found):
                raise other_run(self.sink.records, [f"engine: {self.engine} there, {found} asked for"])
            self.engine = found
        return self._opened

    def other(self) -> dict[str, Any]:
        """The entries of `run.json` that are not part of the identity of the run."""
        from diffclean import __version__

        manifest = self.located.manifest
        _, runtime, precision = self.engine.split("/")
        return {
            "diffclean": __version__,
            "runtime": runtime,
            "precision": precision,
            "engine_fingerprint": manifest.fingerprint,
            "engine_tools": manifest.tools,
            "license": self.located.recipe.license_note,
            "labels": note_on(self.located.settings.labels),
        }

    def go(self, found: Comparison, journal: Journal, total: int, stop: Event) -> None:
        """Make the variations that are missing of `total`.

        Raises:
            Interrupted: some variations are left.
        """
        self._say_cost(found, total - found.kept)
        self.progress.begin("variate", total, done=found.kept)
        try:
            if len(found.jobs):
                self._make(found, journal, total - found.kept, stop)
        finally:
            self.progress.end()
        done = found.kept + self.made
        if left := total - done - len(self.failed):
            raise Interrupted(
                f"Stopped: {done} of {total} variations are in {self.sink.where}, {left} are left.",
                "To continue, type the same command again.",
            )

    def _make(self, found: Comparison, journal: Journal, left: int, stop: Event) -> None:
        opened, manifest = self.open(), self.located.manifest
        work = Work(self.images, self.sink, opened.settings, manifest.image_size, manifest.fingerprint)
        sent = sent_task(work, opened)
        processes = self.concurrency.processes if sent is not None else 1
        windows = round(left * self._cost.windows)
        executor = executor_for(opened, windows, processes, Share(self.concurrency.threads, self.concurrency.workers))
        task = sent if executor.elsewhere and sent is not None else LocalTask(work, opened)
        executor.run(task, found.pending(), partial(self._record, journal), self._begin, stop)

    def _begin(self) -> None:
        self.started = time.monotonic()

    def _record(self, journal: Journal, outcomes: Sequence[Row | Ran]) -> None:
        for outcome in outcomes:
            if isinstance(outcome, Ran):
                self._count(outcome.windows)
        rows = [row if row.status is Status.OK else replace(row, output="") for row in outcomes if isinstance(row, Row)]
        if not rows:
            return
        journal.append(rows)
        for row in rows:
            if row.status is Status.OK:
                self.made += 1
            else:
                self.failed.append(row)
                log.warning("%s: %s", row.key, row.error)
        self.progress.advance(len(rows), failed=len(self.failed))

    def _count(self, windows: int) -> None:
        """Count a batch. If pictures have many windows, this also moves the progress before a picture is finished."""
        self.windows += windows
        if self._cost.windows > 1:
            self.progress.advance(0, failed=len(self.failed), windows=self.windows)

    def _say_cost(self, found: Comparison, left: int) -> None:
        """Log, before the work, how much there is to do and what the variations will lose."""
        if not left:
            return
        settings, side = self.located.settings, self.located.manifest.image_size
        items = (item for item, _ in found.pending())
        self._cost = cost_of(self.images, items, len(found.jobs), settings, side)
        if words := in_words(self._cost, left, settings, side):
            log.info(words)
        if words := loss_in_words(self._cost, settings):
            log.warning(words)
