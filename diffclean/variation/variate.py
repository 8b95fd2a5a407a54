"""`variate`: regenerate a data set, resumably."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

from diffclean.data.atomic import clean_temporaries
from diffclean.data.item import Item
from diffclean.data.journal import Journal, journal_path
from diffclean.data.keys import path_from_key
from diffclean.data.lock import Lock
from diffclean.data.manifest import Row, Status, latest, read_manifest, write_manifest
from diffclean.data.run_record import RunRecord, check_separate, open_run
from diffclean.data.shard import Shard
from diffclean.data.sources import ImageFolder
from diffclean.environment import usable_cores
from diffclean.errors import ExitCode, Interrupted
from diffclean.progress import NoProgress, Progress
from diffclean.results import table
from diffclean.variation.cost import Cost, cost_of, in_words, loss_in_words
from diffclean.variation.labels import KEEP, labeller_for, note_on
from diffclean.variation.pipeline import Stages, stream
from diffclean.variation.processes import default_processes, parts_of, side_by_side
from diffclean.variation.settings import Opened, Settings, open_for, recipe_of
from diffclean.variation.work import Job, Work

if TYPE_CHECKING:
    from pandas import DataFrame

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
        out: the folder.
        total: variations that the data set (or shard) has.
        made: made by this run.
        kept: made by earlier runs of the same command.
        failed: their rows.
        seconds: this run's, without opening the engine.
        windows: that this run has regenerated.
        classes: how many the output has; 0: it has no labels.
        engine: what ran.
        settings: resolved.
        passed_over: what is in the source and was not taken.
    """

    out: Path
    total: int
    made: int
    kept: int
    failed: list[Row]
    seconds: float
    windows: int
    classes: int
    engine: str
    settings: Settings
    passed_over: dict[str, Any]

    @property
    def exit_code(self) -> ExitCode:
        """Done, or some failed."""
        return ExitCode.SOME_FAILED if self.failed else ExitCode.DONE

    @property
    def images_per_second(self) -> float:
        """Variations made a second."""
        return self.made / self.seconds if self.seconds else 0.0

    def for_json(self) -> dict[str, Any]:
        """The fields, with the rate; of a row that failed, what it is and why."""
        failed = [{"key": row.key, "variant": row.variant, "error": row.error} for row in self.failed]
        figures = {"failed": failed, "images_per_second": self.images_per_second, "labels": self.labels_note}
        return {name: value for name, value in vars(self).items() if name != "classes"} | figures

    @property
    def labels_note(self) -> str:
        """What the labels of the output are worth; empty where it has none and none were asked for."""
        return note_on(self.settings.labels) if self.classes or self.settings.labels != KEEP else ""

    def to_pandas(self) -> DataFrame:
        """A row an attempt, as the manifest has it. Needs pandas."""
        return table(latest(read_manifest(self.out / "manifest.parquet")).values())


def variate(
    source: Path,
    out: Path,
    settings: Settings,
    *,
    shard: Shard | None = None,
    concurrency: Concurrency | None = None,
    progress: Progress | None = None,
    stop: Event | None = None,
) -> Report:
    """Regenerate every image below `source` into `out`.

    Args:
        source: a folder of images; see `ImageFolder`.
        out: made if missing; a run that was killed is resumed.
        settings: see `Settings`.
        shard: only this part of the data set; it may be empty, and is then done at once.
        concurrency: who does the work.
        progress: told of every variation.
        stop: when set, the batch in flight is finished, then `Interrupted` is raised.

    Raises:
        DiffcleanError: nothing to do it with, or nothing to do it on; see the modules of `data`.
        Interrupted: `stop` was set before the end; the same call resumes.
    """
    progress = progress or NoProgress()
    stop = stop or Event()
    shard = shard or Shard()
    settings = settings.resolved(recipe_of(settings).defaults)  # what is wrong with them is said before any work
    check_separate(source, out)
    images = settings.images(source)
    items = [item for item in images.items() if shard.takes(item.key)]
    settings.check_names(images)
    _ = images.class_to_idx  # where labels are is asked before any work
    concurrency = concurrency or Concurrency()
    opened = open_for(settings, concurrency.threads, progress)
    labeller = labeller_for(settings.labels)
    classes = labeller.classes(images.class_to_idx)
    with Lock(out, shard.name):
        record = RunRecord(opened.settings.identity(source, opened.engine), classes, _other(opened))
        if open_run(out, record):
            clean_temporaries(out, shard.name)
        with closing(Journal.open(journal_path(out, shard))) as journal:
            run = _Run(images, out, shard, opened, journal, progress)
            total = len(items) * settings.variations
            kept = run.kept(items)
            run.say_cost(items)
            progress.begin("variate", total, done=kept)
            try:
                run.go(items, concurrency, stop)
            finally:
                progress.end()
            made = run.made
            if left := total - made - run.kept_count - len(run.failed):
                # No manifest: it is how `merge` knows that a shard is finished.
                raise Interrupted(
                    f"Stopped: {made + run.kept_count} of {total} variations are in {out}, {left} are left.",
                    "Type the same command again to go on.",
                )
            write_manifest(out, journal.rows(), class_to_idx=classes, shard=shard)
    seconds = time.monotonic() - run.started
    return Report(
        out,
        total,
        made,
        run.kept_count,
        run.failed,
        seconds,
        run.windows,
        len(classes),
        opened.engine.identity,
        opened.settings,
        images.passed_over.as_json(),
    )


def made_already(out: Path, rows: Iterable[Row], items: Sequence[Item], variations: int) -> set[tuple[str, int]]:
    """What earlier runs have made of `items`: journalled as done, and the file is still there."""
    wanted = {item.key for item in items}
    return {
        place
        for place, row in latest(rows).items()
        if row.status is Status.OK and row.key in wanted and row.variant < variations
        if (out / path_from_key(row.output)).is_file()
    }


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
        "labels": note_on(opened.settings.labels),
    }


class _Run:
    """One run: who does the work, and the tally."""

    def __init__(
        self, images: ImageFolder, out: Path, shard: Shard, opened: Opened, journal: Journal, progress: Progress
    ) -> None:
        self.images = images
        self.settings = opened.settings
        self.opened = opened
        self.journal = journal
        self.progress = progress
        self.image_size = opened.engine.manifest.image_size
        fingerprint = opened.engine.manifest.fingerprint
        self.work = Work(images, out, shard.name, opened.settings, self.image_size, fingerprint)
        self.made = 0
        self.windows = 0
        self.kept_count = 0
        self.failed: list[Row] = []
        self.started = time.monotonic()
        self._done: set[tuple[str, int]] = set()
        self._cost = Cost()

    def kept(self, items: Sequence[Item]) -> int:
        """Find out, and count, what earlier runs have made."""
        self._done = made_already(self.work.out, self.journal.rows(), items, self.settings.variations)
        self.kept_count = len(self._done)
        return self.kept_count

    def say_cost(self, items: Sequence[Item]) -> None:
        """Tell people, before the work, how much it is and what of their pictures it will not keep."""
        left = len(items) * self.settings.variations - self.kept_count
        if not left:
            return
        self._cost = cost_of(self.images, items, self.settings, self.image_size)
        if words := in_words(self._cost, left, self.settings, self.image_size):
            log.info(words)
        if words := loss_in_words(self._cost, self.settings):
            log.warning(words)

    def go(self, items: Sequence[Item], concurrency: Concurrency, stop: Event) -> None:
        """Make what is missing."""
        left = len(items) * self.settings.variations - self.kept_count
        processes = concurrency.processes or default_processes(self.opened, round(left * self._cost.windows))
        batch = self.settings.batch
        assert batch is not None
        if processes > 1 and left:
            parts = parts_of(self.images, self.work, self.opened, processes, concurrency.workers, concurrency.threads)
            side_by_side(parts, self._jobs(items), self._record, self._begin, self._tell, stop)
            return
        stages = Stages(self.work.prepare, self.opened.sampler(), self.opened.fallback, self._commit, self._tell)
        workers = concurrency.workers or min(8, max(1, int(usable_cores())))
        stream(self._jobs(items), stages, batch, workers, stop)

    def _begin(self) -> None:
        self.started = time.monotonic()

    def _tell(self, windows: int) -> None:
        """A batch was run; where pictures have many windows, people see it move before a picture is finished."""
        self.windows += windows
        if self._cost.windows > 1:
            self.progress.advance(0, failed=len(self.failed), windows=self.windows)

    def _jobs(self, items: Sequence[Item]) -> Iterator[Job]:
        for item in items:
            missing = [v for v in range(self.settings.variations) if (item.key, v) not in self._done]
            if missing:
                yield item, missing

    def _commit(self, rows: Sequence[Row]) -> None:
        """A batch is on disk: make its names durable, then record it."""
        self.work.writer.sync()
        self._record(rows)

    def _record(self, rows: Sequence[Row]) -> None:
        rows = [row if row.status is Status.OK else replace(row, output="") for row in rows]
        self.journal.append(rows)
        for row in rows:
            if row.status is Status.OK:
                self.made += 1
            else:
                self.failed.append(row)
                log.warning("%s: %s", row.key, row.error)
        self.progress.advance(len(rows), failed=len(self.failed))
