"""Reads every image of a data set once, with all cores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffclean.data.in_order import in_order
from diffclean.data.item import Item, ItemError
from diffclean.data.sources import Source
from diffclean.datasets.pixels import ImageSet, InMemory, Streamed, histogram_of, read_pixels, threads_for
from diffclean.errors import DiffcleanError, UsageError
from diffclean.progress import NoProgress, Progress

Found = tuple[NDArray[np.uint8], str] | str
"""(3, H, W) uint8 with the sha256 of the file, or the reason why it cannot be read."""


@dataclass(frozen=True)
class Read:
    """The images of a data set.

    Attributes:
        pixels: the images that can be read.
        items: their items, in the same order.
        sha256s: the sha256 of their files, in the same order.
        failed: the reason why the others cannot be read, by key.
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
    """Read every image once, and list those that cannot be read.

    Args:
        source: the data set.
        items: the items to read.
        size: the (height, width) that images are resized to (bicubic, antialiased; the aspect ratio is not kept). None
            keeps their size, and all must have the same.
        memory_bytes: the images are held in memory if their pixels take no more; None stands for no limit.
        progress: is advanced for each image.

    Raises:
        UsageError: the sizes differ, and no size was given.
        DiffcleanError: no image can be read.
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
        for item, found in zip(items, in_order(work, items, threads_for(source)), strict=True):
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
    """The images as they are read: held in memory, or only counted by level. The first one determines the size."""

    def __init__(self, source: Source, total: int, memory_bytes: int | None) -> None:
        self.source, self.total, self.memory_bytes = source, total, memory_bytes
        self.items: list[Item] = []
        self.levels = torch.zeros(3, 256, dtype=torch.int64)
        self.images: Tensor | None = None
        self.shape: tuple[int, ...] = ()

    def add(self, item: Item, pixels: NDArray[np.uint8]) -> None:
        """Add an image, (3, H, W) uint8; raise UsageError if its size is not that of the first one."""
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
        """All images."""
        if self.images is not None:
            return InMemory(self.images[: len(self.items)])
        return Streamed(self.source, self.items, size, (self.shape[1], self.shape[2]), self.levels)


def _check_shape(source: Source, item: Item, found: tuple[int, ...], first: tuple[int, ...]) -> None:
    if found != first:
        raise UsageError(
            f"The images in {source.where} differ in size: {item.key} has {found[2]}x{found[1]} px, "
            f"those before it {first[2]}x{first[1]}.",
            "Give a side that all images are resized to, for example: `size` 64 (for evaluate: `classifier_size` 64)",
        )
