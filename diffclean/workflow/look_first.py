"""The first look at a data set, before any work: classes, sizes, unreadable images, copies, and a hash of all."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event
from typing import TypeVar

import numpy as np

from diffclean.data.decode import decode_for
from diffclean.data.item import Item, ItemError
from diffclean.data.registry import open_source
from diffclean.data.sources import Source
from diffclean.datasets.labelled import stored_classes
from diffclean.datasets.pixels import resized
from diffclean.datasets.samples import digest_of, sketch_of
from diffclean.errors import Interrupted
from diffclean.progress import NoProgress, Progress

T = TypeVar("T")
_HASH_SIDE = 8
_AT_ONCE = 512


@dataclass(frozen=True)
class Looked:
    """The contents of a data set.

    Attributes:
        where: the data set.
        stamps: a sha256 of every image's key and stamp. While it stays the same, no image has to be read again.
        digest: a sha256 of every image's key and bytes.
        sketch: a few short hashes that distinguish it from a data set that has no image in common with it.
        images: how many images can be read.
        bytes: the size of all files together.
        classes: name -> how many images can be read, in the order of the class numbers. Empty without labels.
        sizes: "WIDTHxHEIGHT" -> images, the most frequent first.
        usual_side: the median of the longer sides of the images, in pixels.
        largest_side: the longest side of any image, in pixels.
        unreadable: key -> the reason, for every image that cannot be read.
        classless: those of them that have no label. It may be a folder that this user cannot list.
        copies: how many images are exact copies, not counting the first of each group of copies.
        copies_across: how many of the copies lie in another class than the first image of their group.
        alike: how many images look like another one (the same difference hash of 64 bits) without being exact copies,
            not counting the first of each group. Small or plain images may look alike by chance.
        passed_over: kind of file -> how many files were not read.
        notes: what else was passed over, in sentences.
    """

    where: str
    stamps: str
    digest: str
    sketch: list[str]
    images: int
    bytes: int
    classes: Mapping[str, int]
    sizes: Mapping[str, int]
    usual_side: int
    largest_side: int
    unreadable: Mapping[str, str]
    copies: int
    copies_across: int
    alike: int
    classless: Mapping[str, str] = field(default_factory=dict)
    passed_over: Mapping[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Seen:
    """What was found about one image: either `problem` or all other fields."""

    key: str
    label: str
    problem: str = ""
    file_bytes: int = 0
    sha256: str = ""
    look: bytes = b""
    size: tuple[int, int] = (0, 0)


def look(
    data: Path, before: Looked | None = None, progress: Progress | None = None, stop: Event | None = None
) -> Looked:
    """Read every image of a data set once.

    Args:
        data: the data set.
        before: the result of an earlier look, which is returned if all stamps are the same.
        progress: is advanced for each image.
        stop: an event that ends the work when it is set.

    Raises:
        DiffcleanError: there is no such data set, it holds no image, or its folders look like the parts of one.
        Interrupted: `stop` was set.
    """
    progress = progress or NoProgress()
    source = open_source(data)
    items = source.items()
    stamps = digest_of((item.key, item.stamp) for item in items)
    if before is not None and before.stamps == stamps and all(item.stamp for item in items):
        return replace(before, where=str(data))
    seen = []
    progress.begin("Looking at the data", len(items))
    try:
        for one in _in_threads(source, items):
            if stop is not None and stop.is_set():
                raise Interrupted("Interrupted while looking at the data.", "Type the same command again to go on.")
            seen.append(one)
            progress.advance()
    finally:
        progress.end()
    return _told(data, stamps, source, seen)


def _in_threads(source: Source, items: list[Item]) -> Iterator[_Seen]:
    """Look at the items in threads and yield the results in order; a few hundred are in flight at once."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for begin in range(0, len(items), _AT_ONCE):
            yield from pool.map(lambda item: _seen(source, item), items[begin : begin + _AT_ONCE])


def _seen(source: Source, item: Item) -> _Seen:
    try:
        data = source.read(item)
        pixels, size = decode_for(data, 2 * _HASH_SIDE)
    except ItemError as error:
        return _Seen(item.key, item.label, problem=error.message)
    return _Seen(item.key, item.label, "", len(data), hashlib.sha256(data).hexdigest(), difference_hash(pixels), size)


def difference_hash(pixels: np.ndarray) -> bytes:
    """Return eight bytes that are equal for images that look alike.

    Whether each of 8x8 grey values is larger than its right neighbour ("dHash", N. Krawetz, 2013, hackerfactor.com).

    Args:
        pixels: (H, W, 3) uint8.
    """
    small = resized(pixels, (_HASH_SIDE, _HASH_SIDE + 1)).astype(np.int32).sum(2)
    return np.packbits(small[:, :-1] > small[:, 1:]).tobytes()


def _told(data: Path, stamps: str, source: Source, seen: list[_Seen]) -> Looked:
    good = [one for one in seen if not one.problem]
    numbers = dict(stored_classes(data) or source.class_to_idx)
    counts = Counter(one.label for one in good)
    sizes = Counter(one.size for one in good)
    sides = sorted(max(one.size) for one in good)
    copies, across = _copies(good)
    passed = source.passed_over
    return Looked(
        where=str(data),
        stamps=stamps,
        digest=digest_of((one.key, one.sha256) for one in seen),
        sketch=sketch_of([one.sha256 for one in good]),
        images=len(good),
        bytes=sum(one.file_bytes for one in good),
        classes={name: counts[name] for name in sorted(numbers, key=numbers.__getitem__)},
        sizes={f"{width}x{height}": count for (width, height), count in sizes.most_common()},
        usual_side=sides[len(sides) // 2] if sides else 0,
        largest_side=sides[-1] if sides else 0,
        unreadable={one.key: one.problem for one in seen if one.problem},
        classless={one.key: one.problem for one in seen if one.problem and not one.label},
        copies=copies,
        copies_across=across,
        alike=_repeated([one.look for one in good]) - copies,
        passed_over={kind or "without extension": count for kind, count in passed.kinds.items()},
        notes=passed.lines(),
    )


def _copies(seen: list[_Seen]) -> tuple[int, int]:
    """Count the copies beyond the first of each group, and those of them that lie in another class than the first."""
    first: dict[str, str] = {}
    copies = across = 0
    for one in seen:
        label = first.setdefault(one.sha256, one.label)
        copies += 1
        across += label != one.label
    return copies - len(first), across


def _repeated(values: list[T]) -> int:
    return len(values) - len(set(values))
