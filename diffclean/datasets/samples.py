"""`Samples`: the images that a classifier learns from, each in one or more variations, with labels and keys."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from diffclean.data.registry import folders_without_images, open_source
from diffclean.datasets.bits import Bits, Purpose, ids_of, random_bits
from diffclean.datasets.labelled import check_classes, named, stored_classes
from diffclean.datasets.pixels import Chosen, Edit, ImageSet, Streamed
from diffclean.datasets.reading import read_images
from diffclean.environment import memory_bytes
from diffclean.errors import DiffcleanError, UsageError
from diffclean.progress import Progress

_SKETCH_SIZE = 64


class HasKey(Protocol):
    """A row or an item."""

    @property
    def key(self) -> str:
        """The key of its image."""


Keyed = TypeVar("Keyed", bound=HasKey)


@dataclass(frozen=True)
class Samples:
    """Images to learn from.

    Attributes:
        pixels: the pixels of every variation; the variations of one image are adjacent.
        starts: (N + 1,) int64; image i has the variations starts[i] ... starts[i + 1] - 1. A plain folder has one for
            each image.
        keys: the N keys.
        labels: (N,) int64 with the numbers of `class_to_idx`; -1 if there is no label.
        class_to_idx: every class of the model.
        failed: the reason why an image is missing, by key.
        sources: the N sha256 of the files of the originals; `""` if unknown.
        digest: the sha256 of all of this.
    """

    pixels: ImageSet
    starts: Tensor
    keys: list[str]
    labels: Tensor
    class_to_idx: dict[str, int]
    failed: dict[str, str]
    sources: list[str]
    digest: str

    @cached_property
    def ids(self) -> Bits:
        """(N,) bits that identify each image when something random is drawn for it."""
        return ids_of(self.keys)

    @cached_property
    def most_variations(self) -> int:
        """The largest number of variations of one image."""
        return int(self.starts.diff().max())

    def chosen(self, images: Tensor) -> Samples:
        """Some of the images in the given order, with all of their variations.

        Args:
            images: (M,) int64, the numbers of the images.
        """
        counts = self.starts.diff()[images]
        starts = torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])
        views = torch.arange(int(starts[-1])) + (self.starts[images] - starts[:-1]).repeat_interleave(counts)
        keys = [self.keys[number] for number in images.tolist()]
        sources = [self.sources[number] for number in images.tolist()]
        return replace(
            self,
            pixels=Chosen(self.pixels, views),
            starts=starts,
            keys=keys,
            labels=self.labels[images],
            sources=sources,
            digest=digest_of(zip(keys, sources, strict=True)),
        )

    def split(self, share: float) -> tuple[Tensor, Tensor]:
        """Split the images into (N - M,) to train on and (M,) to hold out, about `share` of all.

        The split depends only on the names, so all variations of an image are in the same part, in every run on the
        same data.

        Raises:
            DiffcleanError: one of the two parts would be empty.
        """
        held_out = torch.from_numpy(random_bits(self.ids, Purpose.HOLD_OUT) < np.uint64(int(share * 2**64)))
        parts = torch.where(~held_out)[0], torch.where(held_out)[0]
        if share > 0 and not all(len(part) for part in parts):
            raise DiffcleanError(
                f"Of {len(self.keys)} images, {len(parts[1])} would be held out for validation.",
                "There are too few images for this `validation_share`: give more images, or another share.",
            )
        return parts

    def shown(self, images: Tensor, seed: int, epoch: int) -> Tensor:
        """(B,) the variation that represents each of (B,) images in one epoch."""
        first, counts = self.starts[images], self.starts[images + 1] - self.starts[images]
        if self.most_variations == 1:
            return first
        bits = random_bits(self.ids[images.numpy()], seed, epoch, Purpose.VARIATION) >> np.uint64(1)
        return first + torch.from_numpy(bits.astype(np.int64)) % counts


def digest_of(rows: Iterable[tuple[str, ...]]) -> str:
    """One sha256 of many texts."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update("\0".join(row).encode("utf-8", "surrogatepass") + b"\n")
    return digest.hexdigest()


def sketch_of(sources: list[str]) -> list[str]:
    """A few hashes that identify a data set: its smallest sha256, shortened.

    Two data sets share these as far as they share images.
    """
    return sorted({sha256[:16] for sha256 in sources if sha256})[:_SKETCH_SIZE]


def memory_limit(memory_gib: float | None, processes: int) -> int | None:
    """The bytes that decoded images may take in this process; None if no limit is known."""
    if memory_gib is not None:
        if math.isinf(memory_gib):
            return None
        return int(memory_gib * 2**30 / processes)
    available = memory_bytes()["available"]
    return None if available is None else available // 2 // processes


def folder_samples(
    root: Path,
    size: tuple[int, int] | None = None,
    class_to_idx: Mapping[str, int] | None = None,
    labelled: bool = True,
    without: Collection[str] = (),
    memory: int | None = None,
    progress: Progress | None = None,
    label_from: str | None = None,
) -> Samples:
    """Read root/<class>/**/image.

    Args:
        root: the folder.
        size: as for `read_images`.
        class_to_idx: the classes of the model that will use the images; None stands for those stored with the data set,
            or its folders.
        labelled: whether every image must have a label. If False, an image outside of the model's class folders gets
            the label -1.
        without: the keys of images that are left out.
        memory: the bytes that the decoded images may take; a larger set is streamed. None stands for no limit.
        progress: is advanced for each image.
        label_from: where the labels come from, see `data.labels`; None stands for the first folder.

    Raises:
        UsageError: `without` names none of the images or all of them, the sizes differ and none was given, or there is
            a class that `class_to_idx` does not have.
        DiffcleanError: no labelled image can be read.
    """
    source = open_source(root, label_from=label_from)
    classes = dict(class_to_idx or stored_classes(root) or source.class_to_idx)
    if labelled:
        check_classes(source, classes)
    read = read_images(source, left_after(without, source.items(), root), size, memory_bytes=memory, progress=progress)
    keys = [item.key for item in read.items]
    labels = torch.tensor([classes.get(item.label, -1) for item in read.items])
    digest = digest_of(zip(keys, read.sha256s, strict=True))
    return Samples(read.pixels, torch.arange(len(keys) + 1), keys, labels, classes, read.failed, read.sha256s, digest)


def edited(samples: Samples, root: Path, edit: Edit) -> ImageSet:
    """The pixels of the same images after a change of each, read again when they are needed.

    Args:
        samples: the samples of a folder, from `folder_samples`.
        root: the folder.
        edit: the change of each image at its own size, before it is resized, for example to put a trigger on it.
    """
    source = open_source(root)
    items = {item.key: item for item in source.items()}
    shape = samples.pixels.shape
    return Streamed(source, [items[key] for key in samples.keys], shape, shape, edit=edit)


def left_after(without: Collection[str], found: Iterable[Keyed], root: Path) -> list[Keyed]:
    """What is left of `found` without the given keys.

    Raises:
        UsageError: the keys are none of `root`'s, or all of them.
    """
    found = list(found)
    left = [one for one in found if one.key not in without]
    if without:
        check_listed(len(found), len(left), root)
    return left


def check_listed(images: int, left: int, root: Path) -> None:
    """Refuse a list that names none of the images of a data set, or all of them.

    Args:
        images: the number of images of the data set.
        left: how many of them are not on the list.
        root: the data set, for the message.

    Raises:
        UsageError: the list does not belong to the data set.
    """
    if 0 < left < images:
        return
    how = "none of its images is" if left else "all of its images are"
    raise UsageError(
        f"The list of suspects does not belong to {root}: {how} on it.",
        f"Make a list for this data set: diffclean suspects {root}",
    )


def check_trainable(root: Path, samples: Samples) -> None:
    """Refuse data on which no classifier can be trained.

    Raises:
        DiffcleanError: there are fewer than two classes, or a class has no image.
    """
    classes = samples.class_to_idx
    empty = [name for name, number in classes.items() if not (samples.labels == number).any()]
    empty += folders_without_images(root, classes)
    if empty:
        raise DiffcleanError(
            f"{root} has classes without an image that can be read: {named(empty)}.",
            "Add images, or remove the folder if it is not meant as a class.",
        )
    if len(classes) < 2:
        raise DiffcleanError(
            f"{root} has only one class: {named(classes)}.",
            "A classifier needs two or more class folders: DATA/<class>/image.",
        )
