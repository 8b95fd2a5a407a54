"""`variate`: regenerate a data set, in a run that can be resumed."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from os import PathLike
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

from diffclean.data.apart import path_from
from diffclean.data.item import Item
from diffclean.data.journal import Journal
from diffclean.data.manifest import Row, latest, manifest_name, read_run_manifest, write_sorted_manifest
from diffclean.data.registry import open_sink, open_source
from diffclean.data.run_record import RunRecord, open_run, update_run
from diffclean.data.shard import Shard
from diffclean.data.sinks import Sink
from diffclean.data.sources import Source
from diffclean.data.survey import Comparison, Survey, check_same_data, side_by_side
from diffclean.errors import ExitCode
from diffclean.execution.ray_cluster import Cluster, connected
from diffclean.progress import NoProgress, Progress
from diffclean.results import table
from diffclean.variation.following import Following
from diffclean.variation.labels import KEEP, labeller_for, note_on
from diffclean.variation.run import Concurrency, Run
from diffclean.variation.settings import Settings, identity_of_run, locate, recipe_of

if TYPE_CHECKING:
    from pandas import DataFrame

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class VariateResult:
    """What a run did.

    Attributes:
        where: the output, as it was named.
        total: the number of variations that the data set (or shard) has.
        made: the number of variations that this run made.
        kept: the number of variations that earlier runs of the same command made.
        failed: the rows of the variations that failed.
        filtered: the number of variations that were too unlike their sources (`min_similarity`), also in earlier runs.
            They are listed in the manifest and were not written.
        again: how often this run made a variation again, with another seed, because it was too unlike its source.
        comparing_s: the seconds that comparing variations with their sources took, in all processes together.
        seconds: the duration of this run, without opening the engine.
        windows: the number of windows that this run regenerated.
        engine_busy: the part of the time in which the engine worked, 0 to 1, over all processes; each counts from its
            start to its last batch. In the rest it waited for images to be read or written, or compared them.
        classes: the number of classes of the output; 0 if it has no labels.
        engine: the identity of the engine that ran.
        settings: the resolved settings.
        passed_over: what the source contains and what was not used.
        changes: what differs from the state that an earlier run left, one sentence each.
    """

    where: str
    total: int
    made: int
    kept: int
    failed: list[Row]
    filtered: int
    again: int
    comparing_s: float
    seconds: float
    windows: int
    engine_busy: float
    classes: int
    engine: str
    settings: Settings
    passed_over: dict[str, Any]
    changes: list[str] = field(default_factory=list)

    @property
    def out(self) -> Path:
        """The output folder; for one in a bucket use `where`."""
        return Path(self.where)

    @property
    def exit_code(self) -> ExitCode:
        """Whether everything was done, or some images failed; a filtered variation is no failure."""
        return ExitCode.SOME_FAILED if self.failed else ExitCode.DONE

    @property
    def images_per_second(self) -> float:
        """The number of variations made in a second."""
        return self.made / self.seconds if self.seconds else 0.0

    def for_json(self) -> dict[str, Any]:
        """The fields with the rate; of each failed row only its key, its variant and the error."""
        failed = [{"key": row.key, "variant": row.variant, "error": row.error} for row in self.failed]
        figures = {"failed": failed, "images_per_second": self.images_per_second, "labels": self.labels_note}
        fields = {name: value for name, value in vars(self).items() if name not in ("where", "classes")}
        return {"out": self.where} | fields | figures

    @property
    def labels_note(self) -> str:
        """How reliable the labels of the output are; empty if it has none, and none was asked for."""
        return note_on(self.settings.labels) if self.classes or self.settings.labels != KEEP else ""

    def to_pandas(self) -> DataFrame:
        """A table with a row for each attempt, as in the manifest. Needs pandas."""
        return table(latest(read_run_manifest(self.out / manifest_name())).values())


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
    to: str | None = None,
) -> VariateResult:
    """Regenerate every image of `source` into `out`.

    Args:
        source: a data set in one of the formats of `data.registry`, or an open source.
        out: the output, which is created if it is missing. A run that was killed is resumed, and one whose source has
            changed is brought up to date.
        settings: the settings, see `Settings`.
        shard: the part of the data set to regenerate; it may be empty, and is then done at once.
        concurrency: how the work is distributed.
        progress: is advanced for every variation.
        stop: when set, the current batch is finished, then `Interrupted` is raised.
        verify: whether a resumed run hashes every original and every variation in place of comparing sizes and dates.
        to: the format of `out`, a name in `data.registry.FORMATS`; None stands for that of `source`.

    Raises:
        DiffcleanError: the engine or the data set cannot be used; see the modules of `data`.
        Interrupted: `stop` was set before the end; the same call continues.
    """
    settings = settings.resolved(recipe_of(settings).defaults)  # wrong settings are reported before any work
    with connected(concurrency.ray if concurrency else None) as cluster:
        who = _Who(concurrency or Concurrency(), cluster, progress or NoProgress(), stop or Event())
        return _variate(source, out, settings, shard or Shard(), who, verify, to)


@dataclass(frozen=True)
class _Who:
    """Who works, who is told, and who ends it."""

    concurrency: Concurrency
    cluster: Cluster | None
    progress: Progress
    stop: Event


def _variate(
    source: str | PathLike[str] | Source,
    out: str | PathLike[str] | Sink,
    settings: Settings,
    shard: Shard,
    who: _Who,
    verify: bool,
    to: str | None,
) -> VariateResult:
    images = open_source(source, **settings.reading) if isinstance(source, str | PathLike) else source
    if isinstance(out, str | PathLike):
        place = images.describe()
        out = open_sink(out, to or (place.format if place else None))
    sink = out.for_shard(shard)
    sink.check_apart(images)
    survey = Survey(images, shard)
    settings.check_names(sink, survey.names)
    classes = labeller_for(settings.labels).classes(survey.class_to_idx)
    stop = who.stop
    if who.cluster is None:
        located = locate(settings, who.progress)
    else:  # the form in which an engine is exported depends on whether there is a GPU
        located = who.cluster.ask(locate, settings.anywhere(), stop=stop)
    run = Run(images, sink, located, who.concurrency, who.progress, who.cluster, stop)
    with sink.records.hold(shard.name):
        sink.records.sweep(shard.name)
        record = _record(run, survey, classes)
        before = open_run(sink.records, record)
        with closing(Journal.open(sink.records, shard)) as journal:
            found = Comparison(survey, journal, images, sink, settings.variations, verify, stop)
            if before is not None:
                check_same_data(found, before.source, record.source, sink.where)
            changes = _changes(found, before, record)
            if len(found.jobs):
                run.open()
            for sentence in changes:
                log.warning("%s", sentence)
            found.apply(journal)
            if before is not None:
                update_run(sink.records, before, record)
            with Following(survey, journal, sink, images, classes) as following:
                run.go(found, journal, following, survey.count * settings.variations, stop)
            sink.finish(partial(_made, survey, journal), images, classes)
            # An unfinished run has no manifest, since `merge` recognises finished shards by their manifests.
            write_sorted_manifest(sink.records, journal.rows(), class_to_idx=classes, shard=shard)
    total, seconds = survey.count * settings.variations, time.monotonic() - run.started
    return VariateResult(
        where=sink.where,
        total=total,
        made=run.made,
        kept=found.kept,
        failed=run.failed,
        filtered=found.filtered + run.filtered,
        again=run.again,
        comparing_s=run.comparing_s,
        seconds=seconds,
        windows=run.windows,
        engine_busy=run.engine_s / run.elapsed_s if run.elapsed_s else 0.0,
        classes=len(classes),
        engine=run.engine,
        settings=located.settings,
        passed_over=images.passed_over.as_json(),
        changes=changes,
    )


def _record(run: Run, survey: Survey, classes: Mapping[str, int]) -> RunRecord:
    """The contents of `run.json` for this run."""
    source, place = run.images.describe(), run.sink.describe()
    where = source.where if source else ""
    from_here = path_from(place.where, where) if source and place else ""
    identity = identity_of_run(run.located.settings, run.engine, run.sink)
    return RunRecord(identity, classes, run.other(), where, from_here, survey.images)


def _made(survey: Survey, journal: Journal) -> Iterator[tuple[Item, list[Row]]]:
    """Each image with the last attempts at its variations."""
    return ((item, rows) for item, rows in side_by_side(survey.items(), journal.latest()) if item is not None)


def _changes(found: Comparison, before: RunRecord | None, now: RunRecord) -> list[str]:
    """What differs from the state that an earlier run left, in sentences."""
    if before is None:
        return []
    said = []
    if before.source and before.source != now.source:
        said.append(f"The source is now {now.source}; in the earlier run it was {before.source}.")
    if before.images and before.images != now.images:
        said.append(f"The source now has {now.images} images; in the earlier run it had {before.images}.")
    added, lost = (
        [label for label in a if label not in b]
        for a, b in ((now.class_to_idx, before.class_to_idx), (before.class_to_idx, now.class_to_idx))
    )
    if added or lost:
        parts = [f"new: {', '.join(added[:10])}"] if added else []
        parts += [f"gone: {', '.join(lost[:10])}"] if lost else []
        said.append(f"The classes of the source have changed ({'; '.join(parts)}), and their numbers may have changed.")
    if found.replaced.images:
        said.append(f"Originals that were replaced and are regenerated again: {found.replaced}.")
    if found.gone.images:
        said.append(f"Originals that are gone and whose variations were deleted: {found.gone}.")
    if found.damaged.images:
        said.append(
            f"Images whose variations were changed after they were written and are made again: {found.damaged}."
        )
    return said
