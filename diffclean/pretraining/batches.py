"""The batches of a pretraining run, derived from seed and step alone: images, their corrupted copies, and all noise.

It makes no difference who prepares them, and how far ahead. A GPU needs many workers: one core corrupts a few thousand
images a second, and draws the noise of as many.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from diffclean.data.pixels import Pixels
from diffclean.environment import usable_cores
from diffclean.families.micro_model import NO_VIEW_LEVEL, VIEW_DOWNSAMPLING
from diffclean.families.micro_view import COARSE_FACTORS, COARSE_NOISE_MAX, cell_sides
from diffclean.pretraining.config import PretrainConfig

TRAIN_TIMESTEPS = 1000
_AHEAD = 4
"""The largest number of finished batches that wait, in addition to those that worker processes hold."""
_MOST_WORKERS = 16


@dataclass(frozen=True)
class Draws:
    """The random draws of a step for its images.

    Attributes:
        timestep: (B,) int64.
        view_level: (B,) how much of the view is withheld.
        view_noise: (B, 3, S/2, S/2) standard normal.
        noise: (B, 3, S, S) standard normal.
        cell: (B, 2) float, the sides of the view's cells, see `micro_view.cell_sides`; it stays on the CPU. None if the
            view is not a coarse one.
    """

    timestep: Tensor
    view_level: Tensor
    view_noise: Tensor
    noise: Tensor
    cell: Tensor | None = None

    def pinned(self) -> Draws:
        """The draws in memory that a GPU can read while the CPU continues."""
        moved = ("timestep", "view_level", "view_noise", "noise")
        return replace(self, **{name: getattr(self, name).pin_memory() for name in moved})


@dataclass(frozen=True)
class Example:
    """The batch of a step: clean and corrupted images, (B, S, S, 3) uint8, and the draws for them."""

    clean: Tensor
    corrupted: Tensor
    draws: Draws


def batches(images: Pixels, config: PretrainConfig, first: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless (clean, corrupted) uint8 batches (B, S, S, 3) from step `first` on; they depend on seed and step only."""
    for step in itertools.count(first):
        clean, corrupted = pixels_at(images, config, step)
        yield torch.from_numpy(clean), torch.from_numpy(corrupted)


def pixels_at(images: Pixels, config: PretrainConfig, step: int) -> tuple[Pixels, Pixels]:
    """The images of a step, clean and corrupted: (B, S, S, 3) uint8."""
    count, batch = len(images), config.batch
    places = np.arange(step * batch, (step + 1) * batch)
    picks = np.empty(batch, dtype=np.int64)
    for epoch in np.unique(places // count):
        order = np.random.default_rng([config.seed, 1, int(epoch)]).permutation(count)
        here = places // count == epoch
        picks[here] = order[places[here] % count]
    flipped, side, rng = _form_at(config, step)
    clean = images[picks]
    clean[flipped] = clean[flipped, :, ::-1]
    clean = resized(clean, side)
    corrupted = config.corruptions.apply(clean, rng) if config.corrupt else clean
    return resized(clean, config.size), resized(corrupted, config.size)


def _form_at(config: PretrainConfig, step: int) -> tuple[NDArray[np.bool_], int, np.random.Generator]:
    """Which images of a step are mirrored, the side of its sources in pixels, and the generator for the rest."""
    rng = np.random.default_rng([config.seed, 2, step])
    flipped = rng.random(config.batch) < 0.5
    low = config.low_resolution > 0 and rng.random() < config.low_resolution
    side = int(rng.integers(round(0.375 * config.size), config.size)) if low else config.size
    return flipped, side, rng


def resized(images: Pixels, side: int) -> Pixels:
    """(B, S, S, 3) uint8 -> (B, side, side, 3) uint8, resized as in `data.fit` (Lanczos)."""
    if images.shape[1] == side:
        return images
    lanczos = Image.Resampling.LANCZOS
    return np.stack([np.asarray(Image.fromarray(image).resize((side, side), lanczos)) for image in images])


def draws_at(config: PretrainConfig, step: int) -> Draws:
    """The draws of a step."""
    generator = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
    return draws_from(config, config.batch, generator, own=_form_at(config, step)[1])


def draws_from(config: PretrainConfig, batch: int, generator: torch.Generator, own: int | None = None) -> Draws:
    """Draws for `batch` images; all randomness comes from `generator` (CPU).

    Args:
        config: the configuration, see `PretrainConfig`.
        batch: the number of images.
        generator: the generator of everything that is drawn.
        own: the side that the sources had before they were enlarged, in pixels; None stands for that of the model's
            square.
    """
    size = config.size
    timestep = torch.randint(TRAIN_TIMESTEPS, (batch,), generator=generator)
    if config.start_share:
        at_start = torch.rand(batch, generator=generator) < config.start_share
        timestep = torch.where(at_start, TRAIN_TIMESTEPS - 1, timestep)
    # Views that show more are more frequent, because the default strength uses such views.
    view_level = torch.rand(batch, generator=generator) ** 1.5
    if config.coarse_views:
        view_level = COARSE_NOISE_MAX * view_level
    withheld = torch.rand(batch, generator=generator) < config.view_dropout
    view_level = torch.where(withheld, NO_VIEW_LEVEL, view_level)
    side = size // VIEW_DOWNSAMPLING
    view_noise = torch.randn(batch, 3, side, side, generator=generator)
    noise = torch.randn(batch, 3, size, size, generator=generator)
    if not config.coarse_views:
        return Draws(timestep, view_level, view_noise, noise)
    factor = torch.tensor(COARSE_FACTORS)[torch.randint(len(COARSE_FACTORS), (batch,), generator=generator)]
    cell = cell_sides(factor.float(), torch.full((batch, 2), float(own or size)), size)
    return Draws(timestep, view_level, view_noise, noise, cell)


def default_workers(device: torch.device) -> int:
    """The number of processes that prepare batches.

    For a GPU there is one for each core. Beside a CPU that trains there are none, because its cores are busy.
    """
    return max(1, min(_MOST_WORKERS, int(usable_cores()) - 1)) if device.type == "cuda" else 0


def prepared(
    images: Pixels, config: PretrainConfig, first: int, workers: int = 0, pin: bool = False
) -> Generator[Example, None, None]:
    """Endless batches of all steps from step `first` on, prepared ahead and yielded in order.

    Args:
        images: (N, S, S, 3) uint8.
        config: the configuration, see `PretrainConfig`.
        first: the first step.
        workers: the number of processes that prepare images; 0 stands for a thread of this process. The processes are
            forked, so they share `images`.
        pin: whether everything is put into memory that a GPU can read while the CPU continues.
    """
    source = _from_workers(images, config, first, workers) if workers else batches(images, config, first)

    def pixels(_: int) -> tuple[Tensor, Tensor]:
        clean, corrupted = next(source)
        return (clean.pin_memory(), corrupted.pin_memory()) if pin else (clean, corrupted)

    def draws(step: int) -> Draws:
        return draws_at(config, step).pinned() if pin else draws_at(config, step)

    # torch draws without Python's lock, so threads are enough. Only one thread may call `next(source)`.
    for (clean, corrupted), drawn in zip(
        _ahead(pixels, first, threads=1), _ahead(draws, first, threads=max(1, workers // 2)), strict=True
    ):
        yield Example(clean, corrupted, drawn)


def _from_workers(images: Pixels, config: PretrainConfig, first: int, workers: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Like `batches`, from processes, which use pipes because the shared memory of a container may be small."""
    from torch.utils.data import DataLoader

    loader: Any = DataLoader(
        _Steps(images, config),  # type: ignore[arg-type]
        batch_size=None,
        sampler=itertools.count(first),
        num_workers=workers,
        collate_fn=_as_it_is,
        multiprocessing_context="fork",
    )
    found = iter(loader)  # this forks, and must happen before this process starts threads
    return ((torch.from_numpy(clean), torch.from_numpy(corrupted)) for clean, corrupted in found)


class _Steps:
    """A data set that maps a step to its images."""

    def __init__(self, images: Pixels, config: PretrainConfig) -> None:
        self.images, self.config = images, config

    def __getitem__(self, step: int) -> tuple[Pixels, Pixels]:
        return pixels_at(self.images, self.config, step)


def _as_it_is(item: Any) -> Any:
    return item


def _ahead(make: Callable[[int], Any], first: int, threads: int) -> Iterator[Any]:
    """`make(step)` for each step from `first` on, in order; threads make some of them ahead."""
    pool = ThreadPoolExecutor(threads)
    try:
        steps = itertools.count(first)
        waiting = deque(pool.submit(make, next(steps)) for _ in range(max(_AHEAD, 2 * threads)))
        while True:
            done = waiting.popleft().result()
            waiting.append(pool.submit(make, next(steps)))
            yield done
    finally:
        pool.shutdown(cancel_futures=True)
