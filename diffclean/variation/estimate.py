"""`variate --dry-run`: how many images, how long, how much disk, from a measured batch."""

from __future__ import annotations

import itertools
import math
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diffclean.data.decode import decoded
from diffclean.data.encode import encode
from diffclean.data.fit import from_square, to_square
from diffclean.data.item import ItemError
from diffclean.data.journal import Journal, journal_name
from diffclean.data.registry import open_sink, open_source
from diffclean.data.shard import Shard
from diffclean.data.survey import Comparison, Survey
from diffclean.errors import DiffcleanError
from diffclean.variation.sampler import Sampler
from diffclean.variation.settings import Settings, open_for, recipe_of

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Estimate:
    """What a run would take, from a measured batch."""

    images: int
    variations: int
    already_made: int
    unreadable: int
    images_per_second: float
    seconds: float
    bytes: int
    settings: Settings
    engine: str
    passed_over: dict[str, Any]


def estimate(
    source: Path, out: Path, settings: Settings, *, shard: Shard | None = None, threads: int | None = None
) -> Estimate:
    """Measure a batch and say what the whole would take; writes nothing but the engine cache.

    Raises:
        DiffcleanError: as `variate`, or no image can be read.
    """
    settings = settings.resolved(recipe_of(settings).defaults)
    shard = shard or Shard()
    images, sink = open_source(source, **settings.reading), open_sink(out).for_shard(shard)
    sink.check_apart(images)
    survey = Survey(images, shard)
    settings.check_names(sink, survey.keys)
    opened = open_for(settings, threads)
    assert settings.batch is not None
    sampler = opened.sampler()
    squares, placements = [], []
    unreadable = 0
    # Evenly spread, so that a folder that begins with its smallest images is not taken for all of it.
    stride = max(1, survey.count // settings.batch)
    for item in itertools.islice(survey.items(), 0, None, stride):
        try:
            with decoded(images.read(item), sampler.image_size, settings.limits) as (image, (width, height)):
                square, placement = to_square(image, sampler.image_size, settings.fit)
        except ItemError:
            unreadable += 1
            continue
        squares.append(square)
        placements.append(replace(placement, width=width, height=height))
        if len(squares) == settings.batch:
            break
    if survey.count and not squares:
        raise DiffcleanError(f"None of the {unreadable} images tried in {source} can be read.")
    import torch

    batch = np.zeros((settings.batch, sampler.image_size, sampler.image_size, 3), np.uint8)
    for index, square in enumerate(squares):
        batch[index] = square
    pixels = torch.from_numpy(batch)
    made, batch_s = _measured(sampler, pixels)
    written = 0
    for image, placement in zip(made, placements, strict=False):
        with suppress(ItemError):  # too large for the format: listed as failed by the run
            written += len(encode(from_square(np.array(image), placement, settings.size), settings.format))
    with Journal(sink.records.log(journal_name(shard), write=False)) as journal:
        already = Comparison(survey, journal, images, sink, settings.variations).kept
    left = survey.count * settings.variations - already
    return Estimate(
        survey.count,
        survey.count * settings.variations,
        already,
        unreadable,
        settings.batch / batch_s,
        math.ceil(left / settings.batch) * batch_s,
        round(left * written / max(1, len(placements))),
        settings,
        opened.engine.identity,
        images.passed_over.as_json(),
    )


def _measured(sampler: Sampler, pixels: Tensor) -> tuple[Tensor, float]:
    """Variations of a batch, and the seconds that it takes."""
    seeds = list(range(len(pixels)))
    sampler.generate(pixels, seeds)  # the first is slower
    started = time.monotonic()
    made, _ = sampler.generate(pixels, seeds)
    return made, time.monotonic() - started
