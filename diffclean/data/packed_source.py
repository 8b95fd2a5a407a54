"""A source for any format whose files hold many images each."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffclean.data import classes
from diffclean.data.archive import Archive, Look
from diffclean.data.bucket_path import AnyFile
from diffclean.data.item import Item, ReadError
from diffclean.data.passed_over import PassedOver
from diffclean.data.places import place_of, real
from diffclean.data.shard_files import files_of
from diffclean.data.sources import BYTE_LIMIT, Description
from diffclean.errors import DiffcleanError

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger(__name__)


class PackedSource:
    """Reads images from archives. Each part is a file.

    Args:
        archive: the kind of file.
        where: a file, a pattern or a folder.
        byte_limit: the largest image that is read. None: `BYTE_LIMIT`.
        label_from: where labels are, as defined by the format. None: the usual place.

    Raises:
        DiffcleanError: a file does not exist.
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
        """Accept further keys for items: key -> the part that contains the image."""
        self._others = parts

    def parts(self) -> Sequence[str]:
        """The names of the files."""
        return list(self._files)

    def stream(self, part: str = "") -> Iterator[Item]:
        """Yield every image of one file or of all files. At most the list of one file is held in memory.

        Raises:
            DiffcleanError: a file cannot be read at all, or none of the files holds an image.
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
        """The numbers stored in the data set, or else numbers in label order; numeric labels sort as numbers."""
        stored = self._classes
        labels = set().union(*self._all(self._labels).values()) - {""}
        # A label that is not among the stored names is a class as well.
        return stored if labels <= set(stored) else classes.numbered(labels | set(stored))

    @property
    def passed_over(self) -> PassedOver:
        """What the files contain that was not read."""
        total = PassedOver()
        for one in self._all(self._passed_over).values():
            total.kinds += one.kinds
            total.hidden += one.hidden
        return total

    def read(self, item: Item) -> bytes:
        """Return the encoded bytes of one image.

        Raises:
            ReadError: the item has a `problem`, or its file was changed or cannot be read.
        """
        if item.problem is not None:
            raise ReadError(item.problem)
        data = self.archive.read(self._file_of(item), item)
        if len(data) > self.byte_limit:
            raise ReadError(f"image of {len(data)} bytes; the limit is {self.byte_limit}")
        return data

    def about(self, item: Item) -> Mapping[str, Any]:
        """Return the other data of an image; raises ReadError."""
        return self.archive.about(self._file_of(item), item)

    @property
    def fields(self) -> pa.Schema:
        """The names and types of the other data of the images."""
        self._all(self._labels)
        return self.archive.fields(list(self._files.values()))

    def name(self, item: Item) -> str:
        """Return `<label>/<file>_<rest of the key>`, which is unique and gives one folder per class."""
        part = self.part_of(item)
        stem = part.removesuffix(self.archive.suffix)
        rest = item.key[len(part) + 1 :]
        flat = f"{stem}_{rest}".replace("/", "_").replace(".", "_")  # A dot would begin an extension.
        return f"{item.label}/{flat}" if item.label else flat

    def part_of(self, item: Item) -> str:
        """Return the file that contains an image; raises ReadError if the source has no such file."""
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
        """The files and the named folder, if any: another folder in it would turn it into a folder of images."""
        folder = place_of(self.where)
        return [Path(str(place)) for place in (*([folder] if folder.is_dir() else []), *self._files.values())]

    def describe(self) -> Description:
        """Describe the source by the pattern below a real folder, the size limit, and where labels are."""
        options = {"byte_limit": self.byte_limit, "label_from": self.label_from}
        return Description(self.archive.name, real(place_of(self.where)), options)

    @cached_property
    def _items(self) -> list[Item]:
        return list(self.stream())

    @cached_property
    def _classes(self) -> dict[str, int]:
        return self.archive.class_names(list(self._files.values()))

    @cached_property
    def _names(self) -> dict[int, str]:
        return {number: label for label, number in self._classes.items()}

    def _file_of(self, item: Item) -> AnyFile:
        return self._files[self.part_of(item)]

    def _all(self, found: Any) -> Any:
        """Return `found` after every part was listed."""
        if len(self._labels) < len(self._files):
            self.items()
        return found


def _inner(where: str, folder: str) -> str:
    """Return the place of the files in a folder that may hold them in a sub-folder."""
    inner = place_of(where) / folder
    return str(inner) if folder and inner.is_dir() else where
