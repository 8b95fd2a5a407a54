"""Decoded images: held in memory if they fit, else read again each time they are needed."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from diffclean.data.address import is_address
from diffclean.data.decode import decoded
from diffclean.data.item import Item, ItemError
from diffclean.data.sources import Source
from diffclean.errors import DiffcleanError

Edit = Callable[[str, NDArray[np.uint8]], NDArray[np.uint8]]
"""A function from (key, (H, W, 3) uint8 at the size of the source) to (H, W, 3) uint8."""
Statistics = tuple[tuple[float, ...], tuple[float, ...]]
"""The mean and standard deviation of R, G, B in [0, 1]."""

_BATCHES_AHEAD = 3
_COUNTED_AT_ONCE = 512
_REQUESTS = 32
"""Images of a bucket that are read at a time."""


class ImageSet(Protocol):
    """Images of one size, addressed by number."""

    shape: tuple[int, int]
    """(height, width)."""

    def __len__(self) -> int:
        """The number of images."""

    def batches(self, chosen: Iterable[Tensor]) -> Iterator[Tensor]:
        """For each tensor of (B,) int64 numbers, the images as (B, 3, H, W) uint8."""

    def statistics(self) -> Statistics:
        """The statistics of all images; standard deviations are at least 1/255, also for flat images."""


class InMemory:
    """Images that are held in memory.

    Args:
        images: (N, 3, H, W) uint8.
    """

    def __init__(self, images: Tensor) -> None:
        self.images = images
        self.shape = (int(images.shape[2]), int(images.shape[3]))

    def __len__(self) -> int:
        return len(self.images)

    def batches(self, chosen: Iterable[Tensor]) -> Iterator[Tensor]:
        """See `ImageSet.batches`."""
        return (self.images[numbers] for numbers in chosen)

    def statistics(self) -> Statistics:
        """See `ImageSet.statistics`."""
        return channel_statistics(self.images)


class Streamed:
    """Images that are decoded when they are needed, by threads that work a few batches ahead.

    Args:
        source: the data set.
        items: the images, all of which can be read.
        size: the (height, width) that they are resized to; None if all have `shape` already.
        shape: the (height, width) of each image after that.
        histogram: (3, 256) int64, how often each level of each channel occurs; None if it is to be counted when needed.
        edit: a change of each image before it is resized, for example to put a trigger on it; None for none.
    """

    def __init__(
        self,
        source: Source,
        items: Sequence[Item],
        size: tuple[int, int] | None,
        shape: tuple[int, int],
        histogram: Tensor | None = None,
        edit: Edit | None = None,
    ) -> None:
        self.source, self.items, self.size, self.shape = source, items, size, shape
        self.histogram, self.edit = histogram, edit

    def __len__(self) -> int:
        return len(self.items)

    def batches(self, chosen: Iterable[Tensor]) -> Iterator[Tensor]:
        """See `ImageSet.batches`."""
        pool = ThreadPoolExecutor(threads_for(self.source))
        waiting: deque[list[Future[Tensor]]] = deque()
        numbers = iter(chosen)
        try:
            while True:
                for batch in islice(numbers, _BATCHES_AHEAD - len(waiting)):
                    waiting.append([pool.submit(self._read, self.items[n]) for n in batch.tolist()])
                if not waiting:
                    return
                yield torch.stack([future.result() for future in waiting.popleft()])
        finally:
            pool.shutdown(cancel_futures=True)

    def statistics(self) -> Statistics:
        """See `ImageSet.statistics`."""
        if self.histogram is None:
            counted = map(histogram_of, self.batches(torch.arange(len(self)).split(_COUNTED_AT_ONCE)))
            self.histogram = torch.stack(list(counted)).sum(0)
        return _from_histogram(self.histogram)

    def _read(self, item: Item) -> Tensor:
        try:
            return torch.from_numpy(read_pixels(self.source, item, self.size, self.edit)[0])
        except ItemError as error:
            raise DiffcleanError(f"{item.key} could be read before and cannot be read now: {error.message}.") from error


class Chosen:
    """Some of the images of other `ImageSet`, in another order.

    Args:
        pixels: all images.
        numbers: (M,) int64, the chosen images; they may repeat.
    """

    def __init__(self, pixels: ImageSet, numbers: Tensor) -> None:
        self.pixels, self.numbers, self.shape = pixels, numbers, pixels.shape

    def __len__(self) -> int:
        return len(self.numbers)

    def batches(self, chosen: Iterable[Tensor]) -> Iterator[Tensor]:
        """See `ImageSet.batches`."""
        return self.pixels.batches(self.numbers[numbers] for numbers in chosen)

    def statistics(self) -> Statistics:
        """The statistics of all images of the other `ImageSet`."""
        return self.pixels.statistics()


def threads_for(source: Source) -> int:
    """The number of threads that read and decode: one for each core, and more where each of them waits for a bucket."""
    cores = os.cpu_count() or 1
    return max(cores, _REQUESTS) if is_address(source.where) else cores


def channel_statistics(images: Tensor) -> Statistics:
    """The statistics of (N, 3, H, W) uint8; standard deviations are at least 1/255, also for flat images."""
    return _from_histogram(histogram_of(images))


def read_pixels(
    source: Source, item: Item, size: tuple[int, int] | None, edit: Edit | None = None
) -> tuple[NDArray[np.uint8], str]:
    """Read an image as (3, H, W) uint8, and the sha256 of its file; raise ItemError if that fails."""
    data = source.read(item)
    image: NDArray[np.uint8]
    with decoded(data) as (image, _):
        image = edit(item.key, image) if edit else image
        image = resized(image, size) if size else image
    return np.ascontiguousarray(image.transpose(2, 0, 1)), hashlib.sha256(data).hexdigest()


def resized(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Resize (H, W, 3) uint8 to (height, width, 3) uint8, bicubic with antialiasing, unless it has that size."""
    if image.shape[:2] == size:
        return image
    return np.asarray(Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BICUBIC))


def histogram_of(images: Tensor) -> Tensor:
    """(N, 3, H, W) uint8 -> (3, 256) int64. Statistics from it are exact and need no float copy of the data set."""
    return torch.stack([torch.bincount(images[:, c].reshape(-1).int(), minlength=256) for c in range(3)])


def _from_histogram(histogram: Tensor) -> Statistics:
    share = histogram.double() / histogram.sum(1, keepdim=True)
    levels = torch.arange(256, dtype=torch.float64) / 255
    mean = share @ levels
    std = (share * (levels - mean[:, None]) ** 2).sum(1).sqrt().clamp_min(1 / 255)
    return tuple(mean.tolist()), tuple(std.tolist())
