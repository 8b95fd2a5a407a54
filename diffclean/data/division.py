"""How the images of a data set are divided among the files of an archive."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import count, groupby
from typing import Generic, TypeVar

from diffclean.data.archive import Archive
from diffclean.data.item import Item
from diffclean.data.sources import Source

MOST_IMAGES, MOST_BYTES = 10_000, 512 * 2**20
"""Of one file, where the source has no files whose division could be kept."""

Value = TypeVar("Value")
Sized = tuple[Item, int, Value]
"""An image, its size in bytes, and whatever else belongs to it."""


def divided(
    entries: Iterable[Sized[Value]], source: Source, archive: Archive
) -> Iterator[tuple[str, Iterator[Sized[Value]]]]:
    """Divide images among files: as the source's are divided, or else by number and size.

    Args:
        entries: in the order of keys.
        source: that they come from.
        archive: whose files are meant.

    Yields:
        The name of a file, and what goes into it, which must be taken before the next file is asked for.
    """
    if archive.single:
        yield f"data{archive.suffix}", iter(entries)
        return
    used: set[str] = set()
    numbers = count()
    for part, group in groupby(entries, lambda entry: source.part_of(entry[0])):
        if part:
            stem = part.rpartition(".")[0].replace("/", "_")
            while stem in used:  # a/b.tar and a_b.tar
                stem += "_"
            used.add(stem)
            yield f"{stem}{archive.suffix}", group
        else:
            rest = _Rest(group)
            while rest.has_more:
                yield f"data-{next(numbers):06d}{archive.suffix}", rest.some()


class _Rest(Generic[Value]):
    """Entries that are not in a file yet."""

    def __init__(self, entries: Iterator[Sized[Value]]) -> None:
        self._entries = entries
        self._next = next(entries, None)

    @property
    def has_more(self) -> bool:
        return self._next is not None

    def some(self) -> Iterator[Sized[Value]]:
        """As many as one file takes."""
        images = size = 0
        while self._next is not None and (not images or (images < MOST_IMAGES and size < MOST_BYTES)):
            entry, self._next = self._next, next(self._entries, None)
            images, size = images + 1, size + entry[1]
            yield entry
