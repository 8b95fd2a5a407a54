"""The records of a run in a bucket: `run.json`, journal, manifest and lock.

Objects cannot be appended to. What is appended to a log is therefore an object of its own in the hidden folder
`.diffclean-log`, named by its offset, until the log is closed and becomes one object again. Such an object is written
only if it does not exist, so two writers cannot both append at one place.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from typing import BinaryIO

from diffclean.data.bucket_errors import ChangedError, MissingError, StoreError
from diffclean.data.bucket_path import BucketPath
from diffclean.data.lease import Lease, wait_until_free
from diffclean.data.store import PART_BYTES, Found, Store
from diffclean.errors import DiffcleanError

LOG_FOLDER = ".diffclean-log"
_DIGITS = 15
_MANY = 500
"""The pieces from which a log is written anew as one object, if they have become as large as the rest."""
_LOADED_AT_ONCE = 16


class BucketRecords:
    """Records as objects in a folder of a bucket.

    Args:
        root: the folder.
    """

    def __init__(self, root: BucketPath) -> None:
        self.root = root
        self._lease: Lease | None = None

    @property
    def where(self) -> str:
        """The address of the folder."""
        return str(self.root)

    @contextmanager
    def hold(self, owner: str) -> Iterator[None]:
        """See `Lease`. Shards run beside one another, but not beside a run of the whole."""
        with ExitStack() as held:
            lease = held.enter_context(Lease(self.root.store, self._name(_lock(owner)), self.where))
            others = [_lock("")] if owner else self._shard_locks()
            for other in others:
                wait_until_free(self.root.store, self._name(other), self.where)
            self._lease = lease
            try:
                yield
            finally:
                self._lease = None

    def sweep(self, owner: str) -> None:
        """Nothing incomplete is ever visible; the store drops parts of interrupted uploads by its own rules."""

    def strangers(self) -> list[str]:
        """The names in the folder, without hidden ones."""
        folders, objects = self.root.store.within(self.root.address.path)
        names = [name.rpartition("/")[2] for name in (*folders, *(found.name for found in objects))]
        return sorted(name for name in names if name and name[0] != ".")

    def read(self, name: str) -> bytes | None:
        """The content of an object."""
        try:
            return self.root.store.get(self._name(name))
        except MissingError:
            return None

    def write(self, name: str, data: bytes) -> None:
        """Write or replace an object."""
        self.root.store.put(self._name(name), data)

    def write_new(self, name: str, data: bytes) -> bool:
        """Write an object unless it exists."""
        return self.root.store.create(self._name(name), data) is not None

    @contextmanager
    def stream(self, name: str) -> Iterator[BinaryIO]:
        """Write to a temporary file on this machine, which is sent when the block ends."""
        with tempfile.TemporaryFile() as file:
            yield file
            file.flush()
            self.root.store.put(self._name(name), file)

    def log(self, name: str, write: bool = True) -> BucketLog:
        """See `BucketLog`."""
        return BucketLog(self.root, name, write, self._lease)

    def _name(self, name: str) -> str:
        return (self.root.address / name).path

    def _shard_locks(self) -> list[str]:
        objects = self.root.store.within(self.root.address.path)[1]
        names = [found.name.rpartition("/")[2] for found in objects]
        return [name for name in names if name.startswith(".diffclean-") and name.endswith(".lock")]


class BucketLog:
    """A log in a bucket, with a copy in a temporary file from which it is read.

    Args:
        root: the folder of the records.
        name: the name of the log.
        write: False: it is only read.
        lease: the lock under which it is written.

    Raises:
        DiffcleanError: a piece is missing.
    """

    def __init__(self, root: BucketPath, name: str, write: bool, lease: Lease | None) -> None:
        self._store: Store = root.store
        self._whole = (root.address / name).path
        self._folder = (root.address / LOG_FOLDER / name).path
        self.where = str(root / name)
        self._write, self._lease = write, lease
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`
        self._size = self._begin = self._pieces = 0
        try:
            self._load()
        except BaseException:
            self._file.close()
            raise

    def lines(self) -> Iterator[bytes]:
        """All lines."""
        with os.fdopen(os.dup(self._file.fileno()), "rb") as file:
            file.seek(0)
            yield from file

    def read(self, offset: int, length: int) -> bytes:
        """Read `length` bytes from `offset`."""
        return os.pread(self._file.fileno(), length, offset)

    def append(self, data: bytes) -> int:
        """Add lines with one request.

        Raises:
            DiffcleanError: the lock was lost, or another process has written at the same place.
        """
        if self._lease is not None:
            self._lease.check()
        before = self._size
        if data:
            if self._store.create(self._piece(before), data) is None:
                raise DiffcleanError(
                    f"Another process writes {self.where}.", "Stop it; then type the same command again: it resumes."
                )
            self._add(data)
            self._pieces += 1
        if self._pieces >= _MANY and self._size >= 2 * self._begin:
            self._join()
        return before

    def truncate(self, size: int) -> None:
        """Remove the end."""
        if size < self._size:
            os.ftruncate(self._file.fileno(), size)
            self._size = size
            self._join()

    def close(self) -> None:
        """Make the log one object, and forget the copy. A second call does nothing."""
        if self._file.closed:
            return
        if self._write and self._pieces:
            with suppress(DiffcleanError):  # the pieces are still there, and are as good
                self._join()
        self._file.close()

    def _load(self) -> None:
        found = self._store.head(self._whole)
        for start in range(0, found.size if found else 0, PART_BYTES):
            assert found is not None
            try:
                self._add(self._store.range(found.name, start, min(PART_BYTES, found.size - start), found.tag))
            except ChangedError as error:
                raise DiffcleanError(f"{self.where} is being written.", "Wait, then try again.") from error
        self._begin = self._size
        with ThreadPoolExecutor(_LOADED_AT_ONCE) as pool:
            for chunk in self._store.below(self._folder):
                later = [piece for piece in chunk if self._offset(piece) >= self._begin]
                for piece, data in zip(later, pool.map(self._content, later), strict=True):
                    if self._offset(piece) != self._size:
                        raise DiffcleanError(
                            f"{self.where} is damaged: a piece in {LOG_FOLDER} is missing at byte {self._size}.",
                            "Something other than diffclean changed it. Restore it, or start again with another `out`.",
                        )
                    self._add(data)
                    self._pieces += 1

    def _content(self, piece: Found) -> bytes:
        return self._store.get(piece.name, piece.size, piece.tag)

    def _add(self, data: bytes) -> None:
        os.pwrite(self._file.fileno(), data, self._size)
        self._size += len(data)

    def _join(self) -> None:
        """Write the log as one object; only then are the pieces removed, which it holds."""
        if self._lease is not None:
            self._lease.check()
        with os.fdopen(os.dup(self._file.fileno()), "rb") as file:
            self._store.put(self._whole, file)
        self._begin, self._pieces = self._size, 0
        pieces = [piece.name for chunk in self._store.below(self._folder) for piece in chunk]
        with suppress(StoreError):  # what is left is ignored, since the whole holds it
            self._store.delete(*pieces)

    def _piece(self, offset: int) -> str:
        return f"{self._folder}/{offset:0{_DIGITS}d}"

    def _offset(self, piece: Found) -> int:
        number = piece.name.rpartition("/")[2]
        return int(number) if number.isdigit() and len(number) == _DIGITS else -1


def _lock(owner: str) -> str:
    return f".diffclean-{owner}.lock" if owner else ".diffclean.lock"
