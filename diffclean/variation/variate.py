"""`variate`: regenerate a data set, resumably."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from threading import Event
from typing import Any

from diffclean.data.apart import path_from
from diffclean.data.formats import open_sink, open_source
from diffclean.data.journal import Journal
from diffclean.data.manifest import Row, Status, write_sorted_manifest
from diffclean.data.run_record import RunRecord, open_run, update_run
from diffclean.data.shard import Shard
from diffclean.data.sinks import Sink
from diffclean.data.sources import Source
from diffclean.data.survey import Comparison, Survey, check_same_data
from diffclean.errors import ExitCode, Interrupted
from diffclean.execution.base import Share
from diffclean.progress import NoProgress, Progress
from diffclean.variation.settings import Opened, Settings, open_for, recipe_of
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


@dataclass(frozen=True)
class Report:
    """What a run did.

    Attributes:
        where: what was written to, as it was named.
        total: variations that the data set (or shard) has.
        made: made by this run.
        kept: made by earlier runs of the same command.
        failed: their rows.
        seconds: this run's, without opening the engine.
        engine: what ran.
        settings: resolved.
        changes: what was found to differ from what an earlier run left, a sentence each.
    """

    where: str
    total: int
    made: int
    kept: int
    failed: list[Row]
    seconds: float
    engine: str
    settings: Settings
    changes: list[str] = field(default_factory=list)

    @property
    def out(self) -> Path:
        """The output folder."""
        return Path(self.where)

    @property
    def exit_code(self) -> ExitCode:
        """Done, or some failed."""
        return ExitCode.SOME_FAILED if self.failed else ExitCode.DONE


def variate(
    source: str | PathLike[str] | Source,
    out: str | PathLike[str] | Sink,
    settings: Settings,
    *,
    shard: Shard | None = None,
    concurrency: Concurrency | None = None,
    progress: Progress | None = None,
    stop: Event | None = None,
    verify: bool = False,
) -> Report:
    """Regenerate every image of `source` into `out`.

    Args:
        source: a data set in one of the `formats`, or one that is open.
        out: made if missing; a run that was killed is resumed, and one whose source has changed is brought up to date.
        settings: see `Settings`.
        shard: only this part of the data set; it may be empty, and is then done at once.
        concurrency: who does the work.
        progress: told of every variation.
        stop: when set, the batch in flight is finished, then `Interrupted` is raised.
        verify: before a run is resumed, hash every original and every variation instead of looking at sizes and dates.

    Raises:
        DiffcleanError: nothing to do it with, or nothing to do it on; see the modules of `data`.
        Interrupted: `stop` was set before the end; the same call resumes.
    """
    progress, stop, shard = progress or NoProgress(), stop or Event(), shard or Shard()
    settings = settings.resolved(recipe_of(settings).defaults)  # what is wrong with them is said before any work
    concurrency = concurrency or Concurrency()
    images = open_source(source) if isinstance(source, str | PathLike) else source
    sink = (open_sink(out) if isinstance(out, str | PathLike) else out).for_shard(shard)
    sink.check_apart(images)
    survey = Survey(images, shard)
    sink.check_keys(survey.keys, settings.variations, settings.format.extension)
    opened = open_for(settings, concurrency.threads, progress)
    work = Work(images, sink, opened.settings, opened.engine.manifest.image_size, opened.engine.manifest.fingerprint)
    with sink.records.hold(shard.name):
        record = _record(images, sink, survey, opened)
        before = open_run(sink.records, record)
        if before is not None:
            sink.records.sweep(shard.name)
        with closing(Journal.open(sink.records, shard)) as journal:
            found = Comparison(survey, journal, images, sink, settings.variations, verify, stop)
            if before is not None:
                check_same_data(found, before.source, record.source, sink.where)
            changes = _changes(found, before, record)
            for sentence in changes:
                log.warning("%s", sentence)
            found.apply(journal)
            if before is not None:
                update_run(sink.records, before, record)
            run = _Run(work, opened, journal, progress)
            run.go(found, survey.count * settings.variations, concurrency, stop)
            # No manifest of a run that is not finished: it is how `merge` knows a shard that is.
            rows, classes = journal.rows(), survey.class_to_idx
            write_sorted_manifest(sink.records, rows, class_to_idx=classes, shard=shard)
    total, seconds = survey.count * settings.variations, time.monotonic() - run.started
    identity = opened.engine.identity
    return Report(sink.where, total, run.made, found.kept, run.failed, seconds, identity, settings, changes)


def _record(images: Source, sink: Sink, survey: Survey, opened: Opened) -> RunRecord:
    """What `run.json` says of this run."""
    source, place = images.describe(), sink.describe()
    where = source.where if source else ""
    from_here = path_from(place.where, where) if source and place else ""
    identity = opened.settings.identity(opened.engine)
    return RunRecord(identity, survey.class_to_idx, _other(opened), where, from_here, survey.images)


def _changes(found: Comparison, before: RunRecord | None, now: RunRecord) -> list[str]:
    """What differs from what an earlier run left, in sentences."""
    if before is None:
        return []
    said = []
    if before.source and before.source != now.source:
        said.append(f"The source is now {now.source}; when the run was last begun it was {before.source}.")
    if before.images and before.images != now.images:
        said.append(f"The source has {now.images} images now; it had {before.images}.")
    added, lost = (
        [label for label in a if label not in b]
        for a, b in ((now.class_to_idx, before.class_to_idx), (before.class_to_idx, now.class_to_idx))
    )
    if added or lost:
        parts = [f"new are {', '.join(added[:10])}"] if added else []
        parts += [f"gone are {', '.join(lost[:10])}"] if lost else []
        said.append(f"The source has other classes than before: {'; '.join(parts)}. Their numbers may have changed.")
    if found.replaced.images:
        said.append(f"Originals that were replaced, and are varied anew: {found.replaced}.")
    if found.gone.images:
        said.append(f"Originals that are gone, and whose variations were dropped: {found.gone}.")
    if found.damaged.images:
        said.append(f"Images with variations that were not as they were written, and are made anew: {found.damaged}.")
    return said


def _other(opened: Opened) -> dict[str, Any]:
    from diffclean import __version__

    manifest = opened.engine.manifest
    return {
        "diffclean": __version__,
        "runtime": opened.engine.runtime.name,
        "precision": opened.engine.runtime.precision,
        "engine_fingerprint": manifest.fingerprint,
        "engine_tools": manifest.tools,
        "license": opened.recipe.license_note,
    }


class _Run:
    """One run: it has the work done, and keeps the tally."""

    def __init__(self, work: Work, opened: Opened, journal: Journal, progress: Progress) -> None:
        self.work, self.opened, self.journal, self.progress = work, opened, journal, progress
        self.made = 0
        self.failed: list[Row] = []
        self.started = time.monotonic()
        self._larger = 0

    def go(self, found: Comparison, total: int, concurrency: Concurrency, stop: Event) -> None:
        """Make what is missing of `total` variations.

        Raises:
            Interrupted: some are left.
        """
        share = Share(concurrency.threads, concurrency.workers)
        sent = sent_task(self.work, self.opened)
        processes = concurrency.processes if sent is not None else 1
        executor = executor_for(self.opened, total - found.kept, processes, share)
        task = sent if executor.elsewhere and sent is not None else LocalTask(self.work, self.opened)
        self.progress.begin("variate", total, done=found.kept)
        try:
            executor.run(task, found.pending(), self._record, self._begin, stop)
        finally:
            self.progress.end()
        self._say_small()
        done = found.kept + self.made
        if left := total - done - len(self.failed):
            raise Interrupted(
                f"Stopped: {done} of {total} variations are in {self.work.sink.where}, {left} are left.",
                "Type the same command again to go on.",
            )

    def _begin(self) -> None:
        self.started = time.monotonic()

    def _record(self, rows: Sequence[Row]) -> None:
        rows = [row if row.status is Status.OK else replace(row, output="") for row in rows]
        self.journal.append(rows)
        for row in rows:
            if row.status is Status.OK:
                self.made += 1
                larger = min(row.source_width, row.source_height) > 2 * self.work.image_size
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
                self.work.image_size,
                self.opened.recipe.name,
            )
