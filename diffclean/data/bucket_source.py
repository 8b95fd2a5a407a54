"""Images that lie one by one in a folder of a bucket; the first folder of the path of an image is its label."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffclean.data.bucket_errors import BadNameError, ChangedError, MissingError, RefusedError
from diffclean.data.bucket_path import BucketPath
from diffclean.data.formats import FORMATS, HEAD_BYTES, HEIF, NAMED, heif_is_there, is_taken, sniffed
from diffclean.data.item import Item, ReadError
from diffclean.data.keys import BadKeyError, key_bytes, key_from_path, label_of, safe_text
from diffclean.data.label_table import Table, table_beside
from diffclean.data.labels import Layout, labelled_from
from diffclean.data.passed_over import PassedOver, is_machine_made, is_of_the_system, is_own
from diffclean.data.sources import BYTE_LIMIT, Description
from diffclean.data.store import Found
from diffclean.errors import DiffcleanError

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger(__name__)
_LOOKED_AT_ONCE = 32


class BucketFolder:
    """A folder of images in a bucket, read like `folder.ImageFolder` with these differences.

    An object is an image if its name ends like that of one. Only of objects without an extension are the first bytes
    read. There are no links. The list is that of the moment when it was asked for: an image that is replaced later
    fails, and the same command takes the new one.

    Args:
        where: the address of the folder.
        byte_limit: the largest object that is read, in bytes; None: `BYTE_LIMIT`.
        label_from: where labels are, see `labels.labelled_from`; None: the first folder, if it can be a class.

    Raises:
        DiffcleanError: there is nothing, or the bucket cannot be listed.
    """

    def __init__(self, where: str, byte_limit: int | None = None, label_from: str | None = None) -> None:
        self.root = BucketPath.of(where)
        self.byte_limit = BYTE_LIMIT if byte_limit is None else byte_limit
        self.label_from = label_from
        self._store, self._prefix = self.root.store, self.root.address.path
        self._layout, self._labels, self._passed_over = Layout(), set[str](), PassedOver()
        self._is_listed = False
        if next(self._store.below(self._prefix), None) is None:
            raise DiffcleanError(f"There is nothing in {self.root}.", "Give the address of a folder that holds images.")

    @property
    def where(self) -> str:
        """The address."""
        return str(self.root)

    def parts(self) -> Sequence[str]:
        """One part, the whole folder."""
        return ("",)

    def stream(self, part: str = "") -> Iterator[Item]:
        """Every image, sorted by the raw bytes of its key. The memory needed is that of a thousand names.

        Raises:
            DiffcleanError: the bucket cannot be listed, lists its objects in another order, or holds no image here.
        """
        layout, labels, passed_over = Layout(), set[str](), PassedOver()
        for item in labelled_from(self.root, self._walk(passed_over), self.label_from):
            layout.note(item.key)
            labels.add(item.label)
            yield item
        passed_over.end()
        if not self._is_listed:
            for line in passed_over.lines():
                log.warning("%s: %s", self.root, line)
        if not labels:
            raise DiffcleanError(
                f"{self.root} holds no images ({passed_over.kinds.total()} other objects).",
                f"Expected {NAMED}, here or in sub-folders.",
            )
        self._layout, self._labels, self._passed_over, self._is_listed = layout, labels, passed_over, True

    def items(self) -> list[Item]:
        """Every image; listed at the first call."""
        return self._items

    @property
    def passed_over(self) -> PassedOver:
        """What the folder contains that is not read as an image."""
        self._list()
        return self._passed_over

    @property
    def class_to_idx(self) -> dict[str, int]:
        """The number of each label; empty without sub-folders. Raises `DiffcleanError` as `ImageFolder` does."""
        self._list()
        return self._layout.classes(self.root, self.label_from, self._labels, self._passed_over)

    def read(self, item: Item) -> bytes:
        """The bytes of one image, as it was when it was listed.

        Raises:
            ReadError: the item has a `problem`, or the object is gone, was replaced or may not be read.
            StoreError: the bucket cannot be reached.
        """
        if item.problem is not None:
            raise ReadError(item.problem)
        name, size, tag = json.loads(item.where)
        try:
            return self._store.get(name, size, tag)
        except ChangedError as error:
            raise ReadError("was changed after it was listed; type the same command again") from error
        except (MissingError, RefusedError, BadNameError) as error:
            raise ReadError(error.message) from error

    def name(self, item: Item) -> str:
        """The key itself."""
        return item.key

    def part_of(self, item: Item) -> str:
        """The whole folder is one part."""
        return ""

    def about(self, item: Item) -> Mapping[str, Any]:
        """The other columns of the table that has the labels, where there is one."""
        return self._table.about(item.key)

    @property
    def fields(self) -> pa.Schema:
        """Of that table; none where labels are not in one."""
        return self._table.schema

    def places(self) -> list[Path]:
        """The address as a path, which `apart` understands."""
        return [Path(self.where)]

    def describe(self) -> Description:
        """The address, the limit, and where labels are."""
        return Description("folder", self.where, {"byte_limit": self.byte_limit, "label_from": self.label_from})

    @cached_property
    def _table(self) -> Table:
        return table_beside(self.root, self.label_from)

    @cached_property
    def _items(self) -> list[Item]:
        return list(self.stream())

    def _list(self) -> None:
        if not self._is_listed:
            self.items()

    def _walk(self, passed_over: PassedOver) -> Iterator[Item]:
        last = b""
        with ThreadPoolExecutor(_LOOKED_AT_ONCE, "look") as pool:
            for chunk in self._store.below(self._prefix):
                unnamed = [found for found in chunk if found.size and not _extension(found.name)]
                formats = dict(zip(unnamed, pool.map(self._format, unnamed), strict=True))
                for found in chunk:
                    if not self._is_taken(found, formats.get(found), passed_over):
                        continue
                    item = self._item(found)
                    raw = key_bytes(item.key)
                    if raw <= last:
                        raise DiffcleanError(
                            f"{self.root} lists its objects in another order than that of their names, as S3 Express "
                            "One Zone and hierarchical Azure accounts do.",
                            "Copy the data to a bucket of the usual kind, or to a folder.",
                        )
                    last = raw
                    passed_over.image_in(item.key.rpartition("/")[0])
                    yield item

    def _relative(self, found: Found) -> str:
        return found.name[len(self._prefix) + 1 :] if self._prefix else found.name

    def _format(self, found: Found) -> str | None:
        """The format of an object by its first bytes; None if it is not recognised or cannot be read."""
        try:
            return sniffed(self._store.range(found.name, 0, min(HEAD_BYTES, found.size), found.tag))
        except (ChangedError, MissingError, RefusedError):
            return None

    def _is_taken(self, found: Found, format: str | None, passed_over: PassedOver) -> bool:
        """Whether an object is an image; others are recorded. `format` is that of an object without an extension."""
        relative, extension = self._relative(found), _extension(found.name)
        *folders, name = relative.split("/")
        if is_own(relative.partition("/")[0]):
            return False
        marks_folder = not found.size and not extension
        if marks_folder or is_of_the_system(name) or any(part.startswith(".") for part in (*folders, name)):
            passed_over.hidden += 1
            return False
        machine_made = next((depth for depth, folder in enumerate(folders, 1) if is_machine_made(folder)), 0)
        if machine_made:
            folder = safe_text("/".join(folders[:machine_made]))
            if folder not in passed_over.machine_made:
                passed_over.machine_made.append(folder)
            return False
        if is_taken(extension) or format in FORMATS or (format == HEIF and heif_is_there()):
            return True
        passed_over.add(relative, "heic" if format == HEIF else extension)
        return False

    def _item(self, found: Found) -> Item:
        relative = self._relative(found)
        try:
            key = key_from_path(relative)
        except BadKeyError as error:
            raise DiffcleanError(f"{self.root} has an object whose name is no path: {safe_text(relative)}.") from error
        problem = None
        if found.size > self.byte_limit:
            problem = f"file of {found.size} bytes; the limit is {self.byte_limit}"
        where = json.dumps([found.name, found.size, found.tag])
        return Item(key, where, label_of(key), problem, "" if problem else found.stamp)


def _extension(name: str) -> str:
    """The extension in lower case, without the dot; `""` if there is none."""
    last = name.rpartition("/")[2]
    return last.rpartition(".")[2].lower() if "." in last else ""
