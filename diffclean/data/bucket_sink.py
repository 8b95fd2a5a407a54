"""Variations that are written one by one to a folder of a bucket."""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from threading import Lock

from diffclean.data.apart import check_all_separate
from diffclean.data.atomic import NameWriteError
from diffclean.data.bucket_errors import BadNameError, ChangedError, MissingError, RefusedError
from diffclean.data.bucket_path import BucketPath
from diffclean.data.bucket_records import BucketRecords
from diffclean.data.item import Item, ReadError
from diffclean.data.keys import check_collisions, key_bytes
from diffclean.data.manifest import Row
from diffclean.data.records import Records
from diffclean.data.shard import Shard
from diffclean.data.sinks import say_left_out
from diffclean.data.sources import Description, Source

log = logging.getLogger(__name__)
_CACHE_KIB = 16_384


class BucketSink:
    """A folder of a bucket that images are written to. Every image is one request, and appears as a whole.

    Args:
        where: the address of the folder.
        owner: the name of the shard that writes.
    """

    def __init__(self, where: str, owner: str = "") -> None:
        self.root = BucketPath.of(where)
        self.records: Records = BucketRecords(self.root)
        self._owner = owner
        self._sizes: _Sizes | None = None
        self._listing = Lock()

    @property
    def where(self) -> str:
        """The address."""
        return str(self.root)

    def for_shard(self, shard: Shard) -> BucketSink:
        """The same folder for one shard."""
        return BucketSink(self.where, shard.name)

    def check_apart(self, source: Source) -> None:
        """See `check_all_separate`."""
        check_all_separate(source.places(), Path(self.where))

    def check_keys(self, keys: Iterable[str], variants: int, extension: str, full_names: bool = False) -> None:
        """See `check_collisions`: the output can be copied to every disk."""
        check_collisions(keys, variants=variants, extension=extension, full_names=full_names)

    def write(self, key: str, data: bytes) -> None:
        """Write one image.

        Raises:
            NameWriteError: the store does not take this name.
            StoreError: the bucket cannot be written.
        """
        name = self._name(key)
        try:
            self.root.store.put(name, data)
        except BadNameError as error:
            raise NameWriteError(error.message, error.hint) from error
        self._note(name, len(data))

    def sync(self) -> None:
        """Nothing is left to do: an object is safe once its request was answered."""

    def size(self, key: str) -> int | None:
        """The size of an image; None if there is none. All is listed once, instead of asking about each image."""
        with self._listing:
            if self._sizes is None:
                self._sizes = _Sizes(self.root)
            return self._sizes.get(self._name(key))

    def read(self, key: str) -> bytes:
        """The bytes of an image."""
        try:
            return self.root.store.get(self._name(key))
        except (MissingError, ChangedError, RefusedError, BadNameError) as error:
            raise ReadError(error.message) from error

    def remove(self, *keys: str) -> None:
        """Remove images, many with one request."""
        names = [self._name(key) for key in keys]
        self.root.store.delete(*names)
        for name in names:
            self._note(name, None)

    def follow(self, made: Iterable[tuple[Item, list[Row]]], source: Source, class_to_idx: Mapping[str, int]) -> None:
        """Images lie as they should."""

    def finish(
        self,
        made: Callable[[], Iterable[tuple[Item, list[Row]]]],
        source: Source,
        class_to_idx: Mapping[str, int],
    ) -> None:
        """Images lie as they should; what travels along has no place in a folder, which is said."""
        say_left_out(source)

    def describe(self) -> Description:
        """The address, and the shard that writes."""
        return Description("folder", self.where, {"owner": self._owner})

    def _name(self, key: str) -> str:
        relative = os.fsdecode(key_bytes(key))
        try:
            relative.encode()
        except UnicodeEncodeError:  # bytes of a file name that no text can carry stay escaped, as in the key
            relative = key
        return (self.root.address / relative).path

    def _note(self, name: str, size: int | None) -> None:
        """Bring the list up to date, if there is one."""
        with self._listing:
            if self._sizes is not None:
                self._sizes.note(name, size)


class _Sizes:
    """The sizes of all objects in a folder, in a private database that SQLite moves to a temporary file if it grows."""

    def __init__(self, root: BucketPath) -> None:
        self._database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        for setting in (f"cache_size = -{_CACHE_KIB}", "journal_mode = OFF", "synchronous = OFF"):
            self._database.execute(f"PRAGMA {setting}")
        self._database.execute("CREATE TABLE sizes (name TEXT PRIMARY KEY, size INTEGER) WITHOUT ROWID")
        self._database.execute("BEGIN")
        for chunk in root.store.below(root.address.path):
            found = ((each.name, each.size) for each in chunk)
            self._database.executemany("INSERT OR REPLACE INTO sizes VALUES (?, ?)", found)
        self._database.execute("COMMIT")

    def get(self, name: str) -> int | None:
        """The size of an object; None if there is none."""
        found = self._database.execute("SELECT size FROM sizes WHERE name = ?", (name,)).fetchone()
        return None if found is None else int(found[0])

    def note(self, name: str, size: int | None) -> None:
        """Record that an object was written, or removed."""
        self._database.execute("DELETE FROM sizes WHERE name = ?", (name,))
        if size is not None:
            self._database.execute("INSERT INTO sizes VALUES (?, ?)", (name, size))
