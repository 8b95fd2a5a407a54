"""A labelled image folder as tensors in memory."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from diffclean.data.classes import check_labelled, checked_classes
from diffclean.data.registry import open_source
from diffclean.data.sources import Source
from diffclean.datasets.pixels import Edit, InMemory
from diffclean.datasets.reading import read_images
from diffclean.errors import DiffcleanError, UsageError
from diffclean.progress import Progress

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
    source = open_source(root)
    classes = dict(class_to_idx or stored_classes(root) or source.class_to_idx)
    check_classes(source, classes)
    read = read_images(source, source.items(), size, edit, progress=progress)
    assert isinstance(read.pixels, InMemory)
    labels = torch.tensor([classes[item.label] for item in read.items])
    return LabelledImages(read.pixels.images, labels, [item.key for item in read.items], classes, read.failed)


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


def check_classes(source: Source, classes: Mapping[str, int]) -> None:
    """Refuse images in no class folder, and folders that are no class.

    Raises:
        DiffcleanError: images without a label.
        UsageError: a class that `classes` does not have.
    """
    check_labelled(source.where, source.items())
    if unknown := sorted({item.label for item in source.items()} - set(classes)):
        raise UsageError(
            f"{source.where} has classes that are not expected: {named(unknown, 5)}.", f"Expected: {named(classes)}."
        )


def named(names: Mapping[str, int] | list[str], shown: int = 10) -> str:
    """`ant, bee, cat and 7 more`."""
    every = list(names)
    return ", ".join(every[:shown]) + (f" and {len(every) - shown} more" if len(every) > shown else "")
