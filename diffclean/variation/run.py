"""One run of `variate`: it opens the engine where there is something to do, has the work done, and keeps the tally."""

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
from diffclean.variation.settings import Located, Opened
from diffclean.variation.task import LocalTask, executor_for, sent_task
from diffclean.variation.work import Work

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Concurrency:
    """Who does the work; it changes nothing about the outcome.

    Attributes:
        processes: side by side, see `processes`; None: what is quickest here.
        workers: threads that read, and as many that write, in all processes together; None: one a core, at most 8.
        threads: of the engine, in all processes together; None: all cores.
    """

    processes: int | None = 1
    workers: int | None = None
    threads: int | None = None


class Run:
    """One run: it has the work done, and keeps the tally.

    A run that may have nothing left to do takes the engine's identity from the record that is there, and opens the
    engine when there is something to do after all.

    Args:
        images: what is read.
        sink: what is written to.
        located: the engine.
        concurrency: who does the work.
        progress: told of every variation.

    Attributes:
        engine: `Engine.identity`, of the open engine or as it is on record.
        made: variations made by this run.
        failed: the rows of those that failed.
        started: when the work began, by `time.monotonic`.
    """

    def __init__(
        self, images: Source, sink: Sink, located: Located, concurrency: Concurrency, progress: Progress
    ) -> None:
        self.images, self.sink, self.located = images, sink, located
        self.concurrency, self.progress = concurrency, progress
        self.made = 0
        self.failed: list[Row] = []
        self.started = time.monotonic()
        self._larger = 0
        self._opened: Opened | None = None
        recorded = read_run(sink.records).identity.get("engine") if sink.records.read(RUN_FILE) else None
        self.engine = str(recorded) if located.could_be(recorded) else ""
        if not self.engine:
            self.open()

    def open(self) -> Opened:
        """Open the engine, once.

        Raises:
            DiffcleanError: it turns out to be another one than that of the run.
        """
        if self._opened is None:
            self._opened = self.located.open(self.concurrency.threads)
            found = self._opened.engine.identity
            if self.engine not in ("", found):
                raise other_run(self.sink.records, [f"engine: {self.engine} there, {found} asked for"])
            self.engine = found
        return self._opened

    def other(self) -> dict[str, Any]:
        """What `run.json` says beside the identity."""
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
        }

    def go(self, found: Comparison, journal: Journal, total: int, stop: Event) -> None:
        """Make what is missing of `total` variations.

        Raises:
            Interrupted: some are left.
        """
        self.progress.begin("variate", total, done=found.kept)
        try:
            if len(found.jobs):
                self._make(found, journal, total - found.kept, stop)
        finally:
            self.progress.end()
        self._say_small()
        done = found.kept + self.made
        if left := total - done - len(self.failed):
            raise Interrupted(
                f"Stopped: {done} of {total} variations are in {self.sink.where}, {left} are left.",
                "Type the same command again to go on.",
            )

    def _make(self, found: Comparison, journal: Journal, left: int, stop: Event) -> None:
        opened, manifest = self.open(), self.located.manifest
        work = Work(self.images, self.sink, opened.settings, manifest.image_size, manifest.fingerprint)
        sent = sent_task(work, opened)
        processes = self.concurrency.processes if sent is not None else 1
        executor = executor_for(opened, left, processes, Share(self.concurrency.threads, self.concurrency.workers))
        task = sent if executor.elsewhere and sent is not None else LocalTask(work, opened)
        executor.run(task, found.pending(), partial(self._record, journal), self._begin, stop)

    def _begin(self) -> None:
        self.started = time.monotonic()

    def _record(self, journal: Journal, rows: Sequence[Row]) -> None:
        rows = [row if row.status is Status.OK else replace(row, output="") for row in rows]
        journal.append(rows)
        for row in rows:
            if row.status is Status.OK:
                self.made += 1
                larger = min(row.source_width, row.source_height) > 2 * self.located.manifest.image_size
                self._larger += larger and row.variant == 0
            else:
                self.failed.append(row)
                log.warning("%s: %s", row.key, row.error)
        self.progress.advance(len(rows), failed=len(self.failed))

    def _say_small(self) -> None:
        """Tell people whose photographs are larger than the model what they are getting."""
        if self._larger:
            log.warning(
                "%d images are much larger than the %d px that engine %s works at: their fine detail is gone. "
                "For photographs, use a larger model such as Stable Diffusion image variations.",
                self._larger,
                self.located.manifest.image_size,
                self.located.recipe.name,
            )
