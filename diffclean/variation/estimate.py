"""`variate --dry-run`: how many images, how long, how much disk, from a measured batch."""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from diffclean.data.decode import Limits, decode
from diffclean.data.encode import encode
from diffclean.data.fit import from_square, to_square
from diffclean.data.item import ItemError
from diffclean.data.journal import journal_path, read_journal
from diffclean.data.keys import check_collisions
from diffclean.data.manifest import Status, latest
from diffclean.data.run_record import check_separate
from diffclean.data.shard import Shard
from diffclean.data.sources import ImageFolder
from diffclean.errors import DiffcleanError
from diffclean.variation.settings import Settings, open_for


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


def estimate(
    source: Path, out: Path, settings: Settings, *, shard: Shard | None = None, threads: int | None = None
) -> Estimate:
    """Measure a batch and say what the whole would take; writes nothing but the engine cache.

    Raises:
        DiffcleanError: as `variate`, or no image can be read.
    """
    check_separate(source, out)
    images = ImageFolder(source)
    shard = shard or Shard()
    items = [item for item in images.items() if shard.takes(item.key)]
    check_collisions([i.key for i in images.items()], variants=settings.variations, extension=settings.format.extension)
    opened = open_for(settings, threads)
    settings = opened.settings
    assert settings.batch is not None
    sampler = opened.sampler()
    squares, placements = [], []
    unreadable = 0
    # Evenly spread, so that a folder that begins with its smallest images is not taken for all of it.
    stride = max(1, len(items) // settings.batch)
    for item in itertools.islice(items, 0, None, stride):
        try:
            square, placement = to_square(
                decode(images.read(item), Limits(pixels=settings.pixel_limit)), sampler.image_size, settings.fit
            )
        except ItemError:
            unreadable += 1
            continue
        squares.append(square)
        placements.append(placement)
        if len(squares) == settings.batch:
            break
    if not squares:
        raise DiffcleanError(f"None of the images tried in {source} can be read.")
    import torch

    batch = np.zeros((settings.batch, *squares[0].shape), np.uint8)
    batch[: len(squares)] = squares
    pixels = torch.from_numpy(batch)
    seeds = list(range(settings.batch))
    sampler.generate(pixels, seeds)
    started = time.monotonic()
    made, _ = sampler.generate(pixels, seeds)
    rate = settings.batch / (time.monotonic() - started)
    sizes = [
        len(encode(from_square(np.array(image), placement, settings.size), settings.format))
        for image, placement in zip(made, placements, strict=False)
    ]
    rows = latest(read_journal(journal_path(out, shard))).values()
    already = sum(row.status is Status.OK for row in rows)
    left = len(items) * settings.variations - already
    return Estimate(
        len(items),
        len(items) * settings.variations,
        already,
        unreadable,
        rate,
        left / rate,
        round(left * float(np.mean(sizes))),
        settings,
        opened.engine.identity,
    )
