"""`variate --dry-run`: the number of images and windows, the time and the disk space, measured on one batch."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from diffclean.data.decode import decoded
from diffclean.data.encode import encode
from diffclean.data.fit import restored
from diffclean.data.item import ItemError
from diffclean.data.journal import Journal, journal_name
from diffclean.data.pixels import Pixels
from diffclean.data.registry import format_of, open_sink, open_source
from diffclean.data.run_record import RunRecord, check_run
from diffclean.data.shard import Shard
from diffclean.data.sources import Source
from diffclean.data.survey import Comparison, Survey
from diffclean.errors import DiffcleanError
from diffclean.variation.cost import cost_of
from diffclean.variation.gate import RETRIES
from diffclean.variation.likeness import likeness_for
from diffclean.variation.sampler import Sampler
from diffclean.variation.settings import Opened, Settings, identity_of_run, open_for, recipe_of
from diffclean.variation.windows import Layout, from_canvas, layout, to_canvas


@dataclass(frozen=True)
class Estimate:
    """What a run would take, estimated from one measured batch.

    With a quality gate, `similarities` has the similarity of each picture of the batch to its source, and `windows`
    counts the repetitions as if none of them were better than the first attempt.
    """

    images: int
    variations: int
    already_made: int
    unreadable: int
    windows_per_image: float
    windows: int
    windows_per_second: float
    images_per_second: float
    seconds: float
    bytes: int
    settings: Settings
    engine: str
    passed_over: dict[str, Any]
    similarities: list[float] = field(default_factory=list)
    measure: str = ""


def estimate(
    source: Path,
    out: Path,
    settings: Settings,
    *,
    shard: Shard | None = None,
    threads: int | None = None,
    to: str | None = None,
) -> Estimate:
    """Measure one batch and estimate the whole run. Nothing is written, except for an engine in the cache.

    Raises:
        DiffcleanError: as for `variate`, which would also refuse `out`, or no image can be read.
    """
    settings = settings.resolved(recipe_of(settings).defaults)
    shard = shard or Shard()
    images, sink = (
        open_source(source, **settings.reading),
        open_sink(out, to or format_of(str(source))).for_shard(shard),
    )
    sink.check_apart(images)
    survey = Survey(images, shard)
    settings.check_names(sink, survey.names)
    opened = open_for(settings, threads)
    settings, sampler = opened.settings, opened.sampler()
    identity = identity_of_run(settings, opened.engine.identity, sink)
    check_run(sink.records, RunRecord(identity, survey.class_to_idx, {}))
    assert settings.batch is not None
    sample, unreadable = _sampled(images, survey, settings, sampler.image_size)
    if survey.count and not sample:
        raise DiffcleanError(f"None of the {unreadable} images that were tried in {source} can be read.")
    made, batch_s = _measured(sampler, [square for square, _ in sample], settings.batch)
    written = 0.0
    for square, (_, plan) in zip(made, sample, strict=False):
        with suppress(ItemError):  # the picture is too large for the format; the run lists it as failed
            written += _bytes(square, plan, settings)
    similarities, measure = _compared(opened, [square for square, _ in sample], made)
    share = sum(each < (settings.min_similarity or 0) for each in similarities) / max(1, len(similarities))
    cost = cost_of(images, survey.items(), survey.count, settings, sampler.image_size)
    with Journal(sink.records.log(journal_name(shard), write=False)) as journal:
        found = Comparison(survey, journal, images, sink, settings.variations) if len(journal) else None
    already = 0 if found is None else found.kept + found.filtered
    left = survey.count * settings.variations - already
    windows, rate = round(left * cost.windows * (1 + RETRIES * share)), settings.batch / batch_s
    return Estimate(
        images=survey.count,
        variations=survey.count * settings.variations,
        already_made=already,
        unreadable=unreadable,
        windows_per_image=cost.windows,
        windows=windows,
        windows_per_second=rate,
        images_per_second=rate / cost.windows,
        seconds=math.ceil(windows / settings.batch) * batch_s,
        bytes=round(left * written / max(1, len(sample))),
        settings=settings,
        engine=opened.engine.identity,
        passed_over=images.passed_over.as_json(),
        similarities=similarities,
        measure=measure,
    )


def _sampled(source: Source, survey: Survey, settings: Settings, side: int) -> tuple[list[tuple[Pixels, Layout]], int]:
    """The middle window of as many pictures as a batch holds, and the number of pictures that could not be read.

    The pictures are evenly spread over the data set, because a folder may begin with its smallest images.
    """
    assert settings.batch is not None
    assert settings.detail is not None
    sample: list[tuple[Pixels, Layout]] = []
    unreadable = 0
    for item in itertools.islice(survey.items(), 0, None, max(1, survey.count // settings.batch)):
        try:
            with decoded(source.read(item), settings.detail, settings.limits) as (image, (width, height)):
                plan = layout(width, height, side, settings.detail, settings.fit)
                square = plan.windows.cut(to_canvas(image, plan), len(plan.windows) // 2)
        except ItemError:
            unreadable += 1
            continue
        sample.append((square.copy(), plan))
        if len(sample) == settings.batch:
            break
    return sample, unreadable


def _measured(sampler: Sampler, squares: Sequence[Pixels], batch: int) -> tuple[Pixels, float]:
    """The variations of a batch, and the seconds that the batch takes."""
    import torch

    pixels = np.zeros((batch, sampler.image_size, sampler.image_size, 3), np.uint8)
    for index, square in enumerate(squares):
        pixels[index] = square
    seeds = list(range(batch))
    sampler.generate(torch.from_numpy(pixels), seeds)  # the first call is slower
    started = time.monotonic()
    made, _ = sampler.generate(torch.from_numpy(pixels), seeds)
    return made.numpy(), time.monotonic() - started


def _compared(opened: Opened, squares: Sequence[Pixels], made: Pixels) -> tuple[list[float], str]:
    """The similarity of each window to its source, and how it is measured; nothing without a quality gate."""
    batch = opened.settings.batch
    if opened.settings.min_similarity is None or not squares:
        return [], ""
    assert batch is not None
    likeness = likeness_for(opened.engine, batch)
    return likeness.compare(squares, list(made[: len(squares)])), likeness.measure


def _bytes(window: Pixels, plan: Layout, settings: Settings) -> float:
    """The size of a picture's file, estimated from one window that is enlarged like the picture."""
    if len(plan.windows) == 1:
        return len(encode(from_canvas(window, plan, settings.size), settings.format))
    width, height = plan.size(settings.size)
    left, top, right, bottom = plan.box
    side = plan.windows.side
    across, down = max(1, round(side * width / (right - left))), max(1, round(side * height / (bottom - top)))
    return len(encode(restored(window, across, down), settings.format)) * width * height / (across * down)
