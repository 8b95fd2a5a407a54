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
from diffclean.errors import DiffcleanError, Interrupted
from diffclean.execution.base import Executor, Share
from diffclean.execution.ray_actors import Ray
from diffclean.execution.ray_cluster import Cluster, OnRay
from diffclean.progress import Progress
from diffclean.variation.cost import Cost, cost_of, in_words, loss_in_words
from diffclean.variation.following import Following
from diffclean.variation.labels import note_on
from diffclean.variation.settings import Located, Opened
from diffclean.variation.sight import sight_of
from diffclean.variation.task import LocalTask, Ran, SentTask, executor_for, sent_task
from diffclean.variation.work import Work

log = logging.getLogger(__name__)

_LARGEST_LOT = 64


@dataclass(frozen=True)
class Concurrency:
    """How the work is distributed; this does not change the output.

    Attributes:
        processes: the number of processes, see `execution.processes`; None stands for the fastest number.
        workers: the number of reading threads, and of writing threads, in all processes together; None stands for one
            for each core, at most 8.
        threads: the number of engine threads in all processes together; None stands for all cores.
        ray: the cluster that the work is done on; None stands for this machine. On a cluster, `processes` is the
            largest number of actors, and `workers` and `threads` are those of one actor.
    """

    processes: int | None = 1
    workers: int | None = None
    threads: int | None = None
    ray: OnRay | None = None


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
        cluster: the cluster that the work is done on; None stands for this machine.
        stop: when set, the cluster is not waited for.

    Attributes:
        engine: `Engine.identity` of the open engine, or as recorded.
        made: the number of variations that this run made.
        failed: the rows of the variations that failed.
        filtered: the number of variations that this run listed as filtered.
        again: how often this run made a variation again because it was too unlike its source.
        comparing_s: the seconds that comparing variations with their sources took, in all processes together.
        windows: the number of windows that this run regenerated.
        engine_s: the seconds in which the engines worked, in all processes together.
        elapsed_s: the seconds of all processes together, each from its start to its last batch.
        started: the time when the work began, from `time.monotonic`.
    """

    def __init__(
        self,
        images: Source,
        sink: Sink,
        located: Located,
        concurrency: Concurrency,
        progress: Progress,
        cluster: Cluster | None = None,
        stop: Event | None = None,
    ) -> None:
        self.images, self.sink, self.located = images, sink, located
        self.concurrency, self.progress = concurrency, progress
        self._cluster, self._stop = cluster, stop
        self.made = 0
        self.failed: list[Row] = []
        self.filtered = self.again = 0
        self.comparing_s = 0.0
        self.windows = 0
        self.engine_s = self.elapsed_s = 0.0
        self.started = time.monotonic()
        self._cost = Cost()
        self._opened: Opened | None = None
        self._is_known = False
        recorded = read_run(sink.records).identity.get("engine") if sink.records.read(RUN_FILE) else None
        self.engine = str(recorded) if located.could_be(recorded) else ""
        if not self.engine:
            self.open()

    def open(self) -> None:
        """Open the engine, once. On a cluster, an actor's place is asked how it would open it.

        Raises:
            DiffcleanError: it is not the engine with which the run was started.
        """
        if self._is_known:
            return
        if self._cluster is None:
            self._opened = self.located.open(self.concurrency.threads)
            found = self._opened.engine.identity
        else:
            found = self._cluster.ask(identity_of_engine, self.located, stop=self._stop)
            log.info("Engine %s on the nodes of the cluster.", found)
        if self.engine not in ("", found):
            raise other_run(self.sink.records, [f"engine: {self.engine} there, {found} asked for"])
        self.engine, self._is_known = found, True

    def other(self) -> dict[str, Any]:
        """The entries of `run.json` that are not part of the identity of the run."""
        from diffclean import __version__

        manifest = self.located.manifest
        _, runtime, precision = self.engine.split("/")
        return {
            "diffclean": __version__,
            "runtime": runtime,
            "precision": precision,
            **({"weights": manifest.weights} if manifest.weights else {}),
            "engine_fingerprint": manifest.fingerprint,
            "engine_tools": manifest.tools,
            "license": self.located.recipe.license_note,
            "labels": note_on(self.located.settings.labels),
        }

    def go(self, found: Comparison, journal: Journal, following: Following, total: int, stop: Event) -> None:
        """Make the variations that are missing of `total`, and have the sink follow.

        Raises:
            Interrupted: some variations are left.
        """
        settled = found.kept + found.filtered
        self._say_cost(found, total - settled)
        self.progress.begin("variate", total, done=settled)
        try:
            if len(found.jobs):
                self._make(found, journal, following, total - settled, stop)
        finally:
            self.progress.end()
        done = found.kept + self.made
        if left := total - settled - self.made - self.filtered - len(self.failed):
            raise Interrupted(
                f"Stopped: {done} of {total} variations are in {self.sink.where}, {left} are left.",
                "To continue, type the same command again.",
            )

    def _make(self, found: Comparison, journal: Journal, following: Following, left: int, stop: Event) -> None:
        self.open()
        located, who = self.located, self.concurrency
        work = Work(self.images, self.sink, located.settings, located.manifest.image_size, located.manifest.fingerprint)
        sent = sent_task(work, located, self.engine)
        task: LocalTask | SentTask
        if self._cluster is not None:
            task, executor = self._on_cluster(self._cluster, sent, work, found)
        else:
            assert self._opened is not None
            processes = who.processes if sent is not None else 1
            windows = round(left * self._cost.windows)
            executor = executor_for(self._opened, windows, processes, Share(who.threads, who.workers))
            task = sent if executor.elsewhere and sent is not None else LocalTask(work, self._opened)
        record = partial(self._record, journal, following)
        executor.run(task, following.jobs(found.pending()), record, self._begin, stop)

    def _on_cluster(
        self, cluster: Cluster, sent: SentTask | None, work: Work, found: Comparison
    ) -> tuple[SentTask, Executor]:
        if sent is None:
            raise DiffcleanError(
                "The source or the output exists in this process only, so a cluster cannot be used.",
                "Give folders or addresses, or `executor` local.",
            )
        batch = work.settings.batch
        assert batch is not None
        who = self.concurrency
        executor = Ray(cluster, Share(who.threads, who.workers), min(batch, _LARGEST_LOT), who.processes)
        return replace(sent, sight=sight_of(work, found.pending())), executor

    def _begin(self) -> None:
        self.started = time.monotonic()

    def _record(self, journal: Journal, following: Following, outcomes: Sequence[Row | Ran]) -> None:
        for outcome in outcomes:
            if isinstance(outcome, Ran):
                self._count(outcome)
        rows = [row if row.status is Status.OK else replace(row, output="") for row in outcomes if isinstance(row, Row)]
        if not rows:
            return
        journal.append(rows)
        for row in rows:
            if row.status is Status.OK:
                self.made += 1
            elif row.status is Status.FILTERED:
                self.filtered += 1
            else:
                self.failed.append(row)
                log.warning("%s: %s", row.key, row.error)
        self.progress.advance(len(rows), failed=len(self.failed))
        following.recorded(rows)

    def _count(self, ran: Ran) -> None:
        """Count a batch. If pictures have many windows, this also moves the progress before a picture is finished."""
        self.windows += ran.windows
        self.engine_s += ran.engine_s
        self.elapsed_s += ran.elapsed_s
        self.again += ran.again
        self.comparing_s += ran.comparing_s
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


def identity_of_engine(located: Located) -> str:
    """Open an engine and return `Engine.identity`; for a question to a cluster."""
    return located.open().engine.identity
