"""Read every image of a folder once, by all cores."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffclean.data.item import Item, ItemError
from diffclean.data.sources import Source
from diffclean.datasets.pixels import ImageSet, InMemory, Streamed, histogram_of, read_pixels
from diffclean.errors import DiffcleanError, UsageError
from diffclean.progress import NoProgress, Progress

_AT_ONCE = 4096
"""Images handed to the readers at a time: a future for each of a million would be larger than they are."""

Found = tuple[NDArray[np.uint8], str] | str
"""(3, H, W) uint8 and the file's sha256; or why it cannot be read."""


@dataclass(frozen=True)
class Read:
    """What a folder holds.

    Attributes:
        pixels: of the images that can be read.
        items: they, in the same order.
        sha256s: of their files, in the same order.
        failed: key -> why the others cannot.
    """

    pixels: ImageSet
    items: list[Item]
    sha256s: list[str]
    failed: dict[str, str]


def read_images(
    source: Source,
    items: Sequence[Item],
    size: tuple[int, int] | None = None,
    memory_bytes: int | None = None,
    progress: Progress | None = None,
) -> Read:
    """Read every image once; what cannot be read is listed.

    Args:
        source: a folder.
        items: of the folder.
        size: (height, width) that images are resized to (bicubic, antialiased; shape not kept). None: as they are,
            and all must then have one size.
        memory_bytes: they are held where their pixels take no more; None: always.
        progress: told of each image.

    Raises:
        UsageError: sizes differ and none was given.
        DiffcleanError: not one can be read.
    """
    progress = progress or NoProgress()
    gathered = _Gathered(source, len(items), memory_bytes)
    sha256s: list[str] = []
    failed: dict[str, str] = {}

    def work(item: Item) -> Found:
        try:
            return read_pixels(source, item, size)
        except ItemError as error:
            return error.message

    progress.begin(f"Reading {Path(source.where).name}", len(items))
    try:
        for item, found in zip(items, _mapped(work, items), strict=True):
            if isinstance(found, str):
                failed[item.key] = found
            else:
                gathered.add(item, found[0])
                sha256s.append(found[1])
            progress.advance()
    finally:
        progress.end()
    if not sha256s:
        key, why = next(iter(failed.items()))
        raise DiffcleanError(f"None of the {len(failed)} images in {source.where} can be read. {key}: {why}")
    return Read(gathered.pixels(size), gathered.items, sha256s, failed)


class _Gathered:
    """Images as they come: held, or only their levels counted. The first one tells how large they are."""

    def __init__(self, source: Source, total: int, memory_bytes: int | None) -> None:
        self.source, self.total, self.memory_bytes = source, total, memory_bytes
        self.items: list[Item] = []
        self.levels = torch.zeros(3, 256, dtype=torch.int64)
        self.images: Tensor | None = None
        self.shape: tuple[int, ...] = ()

    def add(self, item: Item, pixels: NDArray[np.uint8]) -> None:
        """One more (3, H, W) uint8; raises UsageError where its size is not the first one's."""
        if not self.items:
            self.shape = pixels.shape
            if self.memory_bytes is None or self.total * pixels.size <= self.memory_bytes:
                self.images = torch.empty(self.total, *self.shape, dtype=torch.uint8)
        _check_shape(self.source, item, pixels.shape, self.shape)
        if self.images is None:
            self.levels += histogram_of(torch.from_numpy(pixels)[None])
        else:
            self.images[len(self.items)] = torch.from_numpy(pixels)
        self.items.append(item)

    def pixels(self, size: tuple[int, int] | None) -> ImageSet:
        """All of them."""
        if self.images is not None:
            return InMemory(self.images[: len(self.items)])
        return Streamed(self.source, self.items, size, (self.shape[1], self.shape[2]), self.levels)


def _mapped(work: Callable[[Item], Found], items: Sequence[Item]) -> Iterator[Found]:
    """`work` on each item by all cores, in order."""
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        for start in range(0, len(items), _AT_ONCE):
            yield from pool.map(work, items[start : start + _AT_ONCE])
    finally:
        pool.shutdown(cancel_futures=True)


def _check_shape(source: Source, item: Item, found: tuple[int, ...], first: tuple[int, ...]) -> None:
    if found != first:
        raise UsageError(
            f"The images in {source.where} differ in size: {item.key} has {found[2]}x{found[1]} px, "
            f"those before it {first[2]}x{first[1]}.",
            "Give the side that all are resized to, for example: `size` 64 (for evaluate: `classifier_size` 64)",
        )
