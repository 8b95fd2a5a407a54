"""`variate`: regenerate a data set, resumably."""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from threading import Event
from threading import Lock as ThreadLock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffclean.data.atomic import Writer, clean_temporaries
from diffclean.data.decode import Limits, decode_for
from diffclean.data.encode import encode
from diffclean.data.fit import from_square, to_square
from diffclean.data.item import Item, ItemError
from diffclean.data.journal import Journal, journal_path
from diffclean.data.keys import check_collisions, path_from_key, variation_name
from diffclean.data.lock import Lock
from diffclean.data.manifest import Row, Status, latest, write_manifest
from diffclean.data.run_record import RunRecord, check_separate, open_run
from diffclean.data.shard import Shard
from diffclean.data.sources import ImageFolder, Source
from diffclean.errors import ExitCode, Interrupted
from diffclean.progress import NoProgress, Progress
from diffclean.variation.color import statistics, transferred
from diffclean.variation.pipeline import Generator, Slot, Stages, stream
from diffclean.variation.seeds import image_seed
from diffclean.variation.settings import Opened, Settings, open_for, recipe_of

log = logging.getLogger(__name__)


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
        engine: what ran.
        settings: resolved.
    """

    out: Path
    total: int
    made: int
    kept: int
    failed: list[Row]
    seconds: float
    engine: str
    settings: Settings

    @property
    def exit_code(self) -> ExitCode:
        """Done, or some failed."""
        return ExitCode.SOME_FAILED if self.failed else ExitCode.DONE


def variate(
    source: Path,
    out: Path,
    settings: Settings,
    *,
    shard: Shard | None = None,
    workers: int | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
    stop: Event | None = None,
) -> Report:
    """Regenerate every image below `source` into `out`.

    Args:
        source: a folder of images; see `ImageFolder`.
        out: made if missing; a run that was killed is resumed.
        settings: see `Settings`.
        shard: only this part of the data set; it may be empty, and is then done at once.
        workers: threads that read, and as many that write; None: one a core, at most 8.
        threads: of the engine; None: all cores.
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
    images = ImageFolder(source)
    items = [item for item in images.items() if shard.takes(item.key)]
    check_collisions([i.key for i in images.items()], variants=settings.variations, extension=settings.format.extension)
    opened = open_for(settings, threads, progress)
    with Lock(out, shard.name):
        record = RunRecord(settings.identity(source, opened.engine), images.class_to_idx, _other(opened))
        if open_run(out, record):
            clean_temporaries(out, shard.name)
        with closing(Journal.open(journal_path(out, shard))) as journal:
            run = _Run(images, out, shard, opened, journal, progress)
            started = time.monotonic()
            total = len(items) * settings.variations
            progress.begin("variate", total, done=run.kept(items))
            try:
                run.go(items, workers or min(8, len(os.sched_getaffinity(0))), stop)
            finally:
                progress.end()
            run.say_small()
            made = run.made
            if left := total - made - run.kept_count - len(run.failed):
                # No manifest: it is how `merge` knows that a shard is finished.
                raise Interrupted(
                    f"Stopped: {made + run.kept_count} of {total} variations are in {out}, {left} are left.",
                    "Type the same command again to go on.",
                )
            write_manifest(out, journal.rows(), class_to_idx=images.class_to_idx, shard=shard)
    seconds = time.monotonic() - started
    return Report(out, total, made, run.kept_count, run.failed, seconds, opened.engine.identity, settings)


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
    }


class _Run:
    """One run: the work on one image, and the tally."""

    def __init__(
        self, images: Source, out: Path, shard: Shard, opened: Opened, journal: Journal, progress: Progress
    ) -> None:
        self.images = images
        self.settings = opened.settings
        self.opened = opened
        self.journal = journal
        self.progress = progress
        self.writer = Writer(out, shard.name)
        self.out = out
        self.sampler: Generator = opened.sampler()
        self.fingerprint = opened.engine.manifest.fingerprint
        self.limits = Limits(pixels=self.settings.pixel_limit)
        self.made = 0
        self.kept_count = 0
        self.failed: list[Row] = []
        self._done: set[tuple[str, int]] = set()
        self._larger = 0
        self._tally = ThreadLock()

    def kept(self, items: Sequence[Item]) -> int:
        """Find out, and count, what earlier runs have made."""
        self._done = made_already(self.out, self.journal.rows(), items, self.settings.variations)
        self.kept_count = len(self._done)
        return self.kept_count

    def go(self, items: Sequence[Item], workers: int, stop: Event) -> None:
        """Make what is missing."""
        engine = self.opened.engine
        fallback = None if engine.runtime.precision == "fp32" else self.opened.fp32_sampler
        stages = Stages(self._prepare, self.sampler, fallback, self._commit)
        assert self.settings.batch is not None
        stream(self._jobs(items), stages, self.settings.batch, workers, stop)

    def _jobs(self, items: Sequence[Item]) -> Iterator[tuple[Item, list[int]]]:
        for item in items:
            missing = [v for v in range(self.settings.variations) if (item.key, v) not in self._done]
            if missing:
                yield item, missing

    def _prepare(self, job: tuple[Item, list[int]]) -> list[Slot | Row]:
        """Read and decode one image: a slot a missing variation, or a failed row each."""
        item, variants = job
        rows = [
            Row(
                item.key,
                variant,
                variation_name(item.key, variant, self.settings.format.extension),
                item.label,
                seed=image_seed(self.settings.seed, item.key, variant),
                engine=self.fingerprint,
            )
            for variant in variants
        ]
        digest = ""
        try:
            data = self.images.read(item)
            digest = hashlib.sha256(data).hexdigest()
            image, (width, height) = decode_for(data, self.sampler.image_size, self.limits)
        except ItemError as error:
            reason = error.message
            return [replace(row, output="", status=Status.FAILED, error=reason, source_sha256=digest) for row in rows]
        size = self.sampler.image_size
        square, placement = to_square(image, size, self.settings.fit)
        placement = replace(placement, width=width, height=height)
        colors = statistics(square, self.settings.color_transfer)
        if min(height, width) > 2 * size:
            with self._tally:
                self._larger += 1

        def finish(row: Row, pixels: NDArray[np.uint8]) -> Row:
            pixels = transferred(pixels, colors, self.settings.color_transfer)
            pixels = from_square(pixels, placement, self.settings.size)
            try:
                encoded = encode(pixels, self.settings.format)
            except ItemError as error:
                return replace(row, status=Status.FAILED, error=error.message)
            self.writer.write(row.output, encoded)
            done = replace(row, width=pixels.shape[1], height=pixels.shape[0])
            return replace(done, output_sha256=hashlib.sha256(encoded).hexdigest())

        slots: list[Slot | Row] = []
        for row in rows:
            row = replace(row, source_sha256=digest, source_width=width, source_height=height)
            slots.append(Slot(row, square, partial(finish, row)))
        return slots

    def _commit(self, rows: Sequence[Row]) -> None:
        """A batch is on disk: make its names durable, then record it."""
        self.writer.sync()
        rows = [row if row.status is Status.OK else replace(row, output="") for row in rows]
        self.journal.append(rows)
        for row in rows:
            if row.status is Status.OK:
                self.made += 1
            else:
                self.failed.append(row)
                log.warning("%s: %s", row.key, row.error)
        self.progress.advance(len(rows), failed=len(self.failed))

    def say_small(self) -> None:
        """Tell people whose photographs are larger than the model what they are getting."""
        size = self.sampler.image_size
        if self._larger:
            log.warning(
                "%d images are much larger than the %d px that engine %s works at: their fine detail is gone. "
                "For photographs, use a larger model such as Stable Diffusion image variations.",
                self._larger,
                size,
                self.opened.recipe.name,
            )
