"""What a pretraining run is shown: every step's images and their corrupted copies, from seed and step alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from diffclean.training.pretrain_config import PretrainConfig


def batches(images: NDArray[np.uint8], config: PretrainConfig, first: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless (clean, corrupted) uint8 batches (B, S, S, 3), a pure function of seed and step, from step `first` on."""
    count, batch = len(images), config.batch
    step = first
    while True:
        places = np.arange(step * batch, (step + 1) * batch)
        picks = np.empty(batch, dtype=np.int64)
        for epoch in np.unique(places // count):
            order = np.random.default_rng([config.seed, 1, int(epoch)]).permutation(count)
            here = places // count == epoch
            picks[here] = order[places[here] % count]
        rng = np.random.default_rng([config.seed, 2, step])
        clean = images[picks]
        flipped = rng.random(batch) < 0.5
        clean[flipped] = clean[flipped, :, ::-1]
        low = config.low_resolution > 0 and rng.random() < config.low_resolution
        side = int(rng.integers(round(0.375 * config.size), config.size)) if low else config.size
        clean = resized(clean, side)
        corrupted = config.corruptions.apply(clean, rng) if config.corrupt else clean
        clean, corrupted = resized(clean, config.size), resized(corrupted, config.size)
        yield torch.from_numpy(clean), torch.from_numpy(corrupted)
        step += 1


def resized(images: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """(B, S, S, 3) uint8 -> (B, side, side, 3) uint8, as `data.fit` resizes (Lanczos)."""
    if images.shape[1] == side:
        return images
    lanczos = Image.Resampling.LANCZOS
    return np.stack([np.asarray(Image.fromarray(image).resize((side, side), lanczos)) for image in images])


def prefetched(source: Iterator[Any], depth: int = 4) -> Iterator[Any]:
    """Draw from `source` in a thread of its own, at most `depth` items ahead."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        waiting = [pool.submit(next, source) for _ in range(depth)]
        while True:
            yield waiting.pop(0).result()
            waiting.append(pool.submit(next, source))
