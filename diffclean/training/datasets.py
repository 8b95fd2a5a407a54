"""A labelled image folder as tensors in memory."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from diffclean.data.classes import checked_classes
from diffclean.data.decode import decode
from diffclean.data.item import Item, ItemError
from diffclean.data.sources import ImageFolder
from diffclean.errors import DiffcleanError, UsageError
from diffclean.progress import NoProgress, Progress

Edit = Callable[[str, NDArray[np.uint8]], NDArray[np.uint8]]
"""(key, (H, W, 3) uint8 at the source's size) -> (H, W, 3) uint8."""

_STORED_IN = ("run.json", "poison.json")


@dataclass(frozen=True)
class LabelledImages:
    """A data set in memory.

    Attributes:
        images: (N, 3, H, W) uint8.
        labels: (N,) int64, indices as in `class_to_idx`.
        keys: N keys, in the order of the images.
        class_to_idx: every class of the data set or of the model it is for, also those without an image here.
        failed: key -> why it is missing.
    """

    images: Tensor
    labels: Tensor
    keys: list[str]
    class_to_idx: dict[str, int]
    failed: dict[str, str]


def load(
    root: Path,
    size: tuple[int, int] | None = None,
    class_to_idx: Mapping[str, int] | None = None,
    edit: Edit | None = None,
    progress: Progress | None = None,
) -> LabelledImages:
    """Read root/<class>/**/image.

    Args:
        root: the folder.
        size: (height, width) that images are resized to (bicubic, antialiased; shape not kept). None: as they are,
            and all must then have one size.
        class_to_idx: of the model that will see the images; None: the one stored with the data set, or its folders.
        edit: what is done to each image before resizing (a trigger).
        progress: told of each image.

    Raises:
        UsageError: sizes differ and none was given; a class that `class_to_idx` does not have.
        DiffcleanError: no labelled image that can be read.
    """
    source = ImageFolder(root)
    classes = dict(class_to_idx or stored_classes(root) or source.class_to_idx)
    _check_classes(root, source, classes)
    progress = progress or NoProgress()
    read: list[Item] = []
    failed: dict[str, str] = {}
    images: Tensor | None = None
    pool = ThreadPoolExecutor(os.cpu_count())
    progress.begin(f"Reading {root.name}", len(source.items()))
    try:
        found = pool.map(lambda item: _read(source, item, size, edit), source.items())
        for item, pixels in zip(source.items(), found, strict=True):
            if isinstance(pixels, str):
                failed[item.key] = pixels
            else:
                if images is None:  # the first image that can be read says how large they are
                    images = torch.empty(len(source.items()), *pixels.shape, dtype=torch.uint8)
                _check_shape(root, item, pixels.shape, tuple(images.shape[1:]))
                images[len(read)] = torch.from_numpy(pixels)
                read.append(item)
            progress.advance()
    finally:
        pool.shutdown(cancel_futures=True)
        progress.end()
    if images is None:
        key, why = next(iter(failed.items()))
        raise DiffcleanError(f"None of the {len(failed)} images in {root} can be read. {key}: {why}")
    labels = torch.tensor([classes[item.label] for item in read])
    return LabelledImages(images[: len(read)], labels, [item.key for item in read], classes, failed)


def stored_classes(root: Path) -> dict[str, int] | None:
    """The `class_to_idx` that diffclean wrote with a data set (`run.json`, `poison.json`); None where it did not."""
    for path in (root / name for name in _STORED_IN):
        if path.is_file():
            try:
                stored = json.loads(path.read_text(encoding="utf-8")).get("class_to_idx")
            except (ValueError, AttributeError) as error:
                raise DiffcleanError(f"{path} is damaged: {error}") from error
            if stored:
                return checked_classes(stored)
    return None


def resized(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 to (height, width, 3) uint8, bicubic with antialiasing; untouched where the size is right."""
    if image.shape[:2] == size:
        return image
    return np.asarray(Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BICUBIC))


def _read(source: ImageFolder, item: Item, size: tuple[int, int] | None, edit: Edit | None) -> NDArray[np.uint8] | str:
    """(3, H, W) uint8, or why it cannot be read."""
    try:
        image: NDArray[np.uint8] = decode(source.read(item))
    except ItemError as error:
        return error.message
    image = edit(item.key, image) if edit else image
    image = resized(image, size) if size else image
    return np.ascontiguousarray(image.transpose(2, 0, 1))


def _check_classes(root: Path, source: ImageFolder, classes: Mapping[str, int]) -> None:
    if any(item.label == "" for item in source.items()):
        raise DiffcleanError(f"{root} has images in no class folder.", "Expected DATA/<class>/image.")
    unknown = sorted(set(source.class_to_idx) - set(classes))
    if unknown:
        shown = ", ".join(unknown[:5]) + (f" and {len(unknown) - 5} more" if len(unknown) > 5 else "")
        known = ", ".join(list(classes)[:10]) + (", ..." if len(classes) > 10 else "")
        raise UsageError(f"{root} has classes that are not expected: {shown}.", f"Expected: {known}.")


def _check_shape(root: Path, item: Item, found: tuple[int, ...], first: tuple[int, ...]) -> None:
    if found != first:
        raise UsageError(
            f"The images in {root} differ in size: {item.key} has {found[2]}x{found[1]} px, "
            f"those before it {first[2]}x{first[1]}.",
            "Give the side that all are resized to, for example: --size 64",
        )
