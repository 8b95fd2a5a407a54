"""A source of files that hold many images each, whatever kind of file it is."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffclean.data import classes
from diffclean.data.archive import Archive, Look
from diffclean.data.item import Item, ReadError
from diffclean.data.passed_over import PassedOver
from diffclean.data.shard_files import files_of
from diffclean.data.sources import BYTE_LIMIT, Description
from diffclean.errors import DiffcleanError

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger(__name__)


class PackedSource:
    """Images in archives. A part is a file.

    Args:
        archive: the kind of file.
        where: a file, a pattern or a folder.
        byte_limit: the largest image that is read. None: `BYTE_LIMIT`.
        label_from: where labels are, as the format understands it; None: the usual place.

    Raises:
        DiffcleanError: a file is not there.
    """

    def __init__(
        self, archive: Archive, where: str, byte_limit: int | None = None, label_from: str | None = None
    ) -> None:
        self.archive, self.where = archive, where
        self.byte_limit = BYTE_LIMIT if byte_limit is None else byte_limit
        self.label_from = label_from
        self._files = files_of(_inner(where, archive.folder), archive.suffix, archive.title, archive.ending)
        self._labels: dict[str, set[str]] = {}
        self._passed_over: dict[str, PassedOver] = {}
        self._found = 0
        self._others: Mapping[str, str] = {}

    def keep_only(self, names: Collection[str]) -> None:
        """Leave out the files whose parts are not among `names`."""
        self._files = {part: path for part, path in self._files.items() if part in names}

    def also_known(self, parts: Mapping[str, str]) -> None:
        """Take items under keys of another kind as well: key -> the part that the image lies in."""
        self._others = parts

    def parts(self) -> Sequence[str]:
        """The names of the files."""
        return list(self._files)

    def stream(self, part: str = "") -> Iterator[Item]:
        """Every image of a file, or of all; memory is that of one file's list.

        Raises:
            DiffcleanError: a file cannot be read at all, or all of them hold no image.
        """
        for name in [part] if part else self.parts():
            labels, passed_over = set(), PassedOver()
            look = Look(self.byte_limit, self.label_from, passed_over, self._names)
            for item in self.archive.entries(name, self._files[name], look):
                labels.add(item.label)
                self._found += 1
                yield item
            if name not in self._labels:
                for line in passed_over.lines():
                    log.warning("%s: %s", name, line)
            self._labels[name], self._passed_over[name] = labels, passed_over
        if len(self._labels) == len(self._files) and not self._found:
            raise DiffcleanError(
                f"{self.where} holds no images.", f"Expected {self.archive.title} with images; see docs/formats.md."
            )

    def items(self) -> list[Item]:
        """Every image; listed at the first call."""
        return self._items

    @property
    def class_to_idx(self) -> dict[str, int]:
        """As the data set itself says, or else numbered in order; labels that are numbers in the order of numbers."""
        stored = self._classes
        labels = set().union(*self._all(self._labels).values()) - {""}
        # A label that the stored names do not have is a class as well.
        return stored if labels <= set(stored) else classes.numbered(labels | set(stored))

    @property
    def passed_over(self) -> PassedOver:
        """What is in the files and was not taken."""
        total = PassedOver()
        for one in self._all(self._passed_over).values():
            total.kinds += one.kinds
            total.hidden += one.hidden
        return total

    def read(self, item: Item) -> bytes:
        """The encoded bytes of one image.

        Raises:
            ReadError: the item has a `problem`, or its file was changed or cannot be read (any more).
        """
        if item.problem is not None:
            raise ReadError(item.problem)
        data = self.archive.read(self._file_of(item), item)
        if len(data) > self.byte_limit:
            raise ReadError(f"image of {len(data)} bytes; the limit is {self.byte_limit}")
        return data

    def about(self, item: Item) -> Mapping[str, Any]:
        """What travels along with an image; raises ReadError."""
        return self.archive.about(self._file_of(item), item)

    @property
    def fields(self) -> pa.Schema:
        """Names and types of what travels along."""
        self._all(self._labels)
        return self.archive.fields(list(self._files.values()))

    def name(self, item: Item) -> str:
        """`<label>/<file>_<rest of the key>`: unique, and in one folder a class."""
        part = self.part_of(item)
        stem = part.removesuffix(self.archive.suffix)
        rest = item.key[len(part) + 1 :]
        flat = f"{stem}_{rest}".replace("/", "_").replace(".", "_")  # behind a dot would be an extension
        return f"{item.label}/{flat}" if item.label else flat

    def part_of(self, item: Item) -> str:
        """The file that it lies in; raises ReadError where that is none of the source's."""
        ending, key = self.archive.ending, item.key
        if key in self._others:
            return self._others[key]
        at = key.find(ending)
        while at >= 0:
            if key[:at] in self._files:
                return key[:at]
            at = key.find(ending, at + 1)
        raise ReadError(f"its file is not among those of {self.where}")

    def places(self) -> list[Path]:
        """The files; and the folder, where that was named: another folder in it would make it one of images."""
        folder = Path(self.where)
        return [*([folder] if folder.is_dir() else []), *self._files.values()]

    def describe(self) -> Description:
        """The pattern below a real folder, the limit, and where labels are."""
        options = {"byte_limit": self.byte_limit, "label_from": self.label_from}
        path = Path(self.where)
        real = os.path.realpath(path) if path.exists() else os.path.join(os.path.realpath(path.parent), path.name)  # noqa: PTH118
        return Description(self.archive.name, real, options)

    @cached_property
    def _items(self) -> list[Item]:
        return list(self.stream())

    @cached_property
    def _classes(self) -> dict[str, int]:
        return self.archive.class_names(list(self._files.values()))

    @cached_property
    def _names(self) -> dict[int, str]:
        return {number: label for label, number in self._classes.items()}

    def _file_of(self, item: Item) -> Path:
        return self._files[self.part_of(item)]

    def _all(self, found: Any) -> Any:
        """`found`, once every part was listed."""
        if len(self._labels) < len(self._files):
            self.items()
        return found


def _inner(where: str, folder: str) -> str:
    """Where the files lie in a folder that may have them in a sub-folder."""
    inner = Path(where) / folder
    return str(inner) if folder and inner.is_dir() else where
