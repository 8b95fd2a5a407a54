"""A file in a bucket that is used like a `pathlib.Path`: the part of its interface that readers of data sets need."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from diffclean.data.address import Address
from diffclean.data.bucket_errors import ChangedError, MissingError, RefusedError
from diffclean.data.store import Found, Store

_FIRST_BYTES, _MOST_BYTES = 2**16, 8 * 2**20
"""Read at once: the fewest, where reading jumps, and the most, where it goes straight on."""


@dataclass(frozen=True)
class BucketPath:
    """A file or folder in a bucket.

    Attributes:
        address: where it lies.
        store: the bucket.
    """

    address: Address
    store: Store = field(compare=False, repr=False)

    @classmethod
    def of(cls, where: str | os.PathLike[str]) -> BucketPath:
        """The path of an address; raises UsageError as `Address.parse` does."""
        address = Address.parse(where)
        return cls(address, Store(address))

    def __truediv__(self, name: str) -> BucketPath:
        return BucketPath(self.address / name, self.store) if name else self

    def __str__(self) -> str:
        return str(self.address)

    @property
    def name(self) -> str:
        """The last part; for a whole bucket its name."""
        return PurePosixPath(self.address.path).name or self.address.bucket

    @property
    def suffix(self) -> str:
        """The ending of the name, with its dot."""
        return PurePosixPath(self.address.path).suffix

    @property
    def parent(self) -> BucketPath:
        """The folder that contains it."""
        path = self.address.path.rpartition("/")[0]
        return BucketPath(Address(self.address.scheme, self.address.bucket, path), self.store)

    def with_suffix(self, suffix: str) -> BucketPath:
        """The same path with another ending."""
        return self.parent / PurePosixPath(self.name).with_suffix(suffix).name

    def found(self) -> Found | None:
        """The object of this name, as it was a few seconds ago; None if there is none."""
        return self.store.seen(self.address.path) if self.address.path else None

    def is_file(self) -> bool:
        """Whether there is an object of this name."""
        return self.found() is not None

    def is_dir(self) -> bool:
        """Whether something lies below it."""
        return next(self.store.below(self.address.path), None) is not None

    def entries(self) -> Iterator[tuple[str, bool]]:
        """The names in this folder, each with whether it is a folder. What lies below is listed as far as is asked."""
        last = ""
        for chunk in self.store.below(self.address.path):
            for found in chunk:
                name, slash, _ = found.name[len(self.address.path) :].lstrip("/").partition("/")
                if name != last:
                    yield name, bool(slash)
                last = name

    def is_symlink(self) -> bool:
        """A bucket has no links."""
        return False

    def stat(self) -> os.stat_result:
        """The size alone; raises FileNotFoundError."""
        found = self.there()
        return os.stat_result((0o100444, 0, 0, 1, 0, 0, found.size, 0, 0, 0))

    def read_bytes(self) -> bytes:
        """All of it; raises OSError."""
        found = self.there()
        with io_errors():
            return self.store.get(found.name, found.size, found.tag)

    def read_text(self, encoding: str) -> str:
        """All of it as text; raises OSError or UnicodeDecodeError."""
        return self.read_bytes().decode(encoding)

    def open(self, mode: str = "rb") -> io.BufferedReader:
        """Open it for reading at any place; raises FileNotFoundError."""
        return io.BufferedReader(BucketFile(self.store, self.there()), 2**16)

    def read_range(self, offset: int, size: int, stamp: str) -> bytes:
        """Some bytes, if the object still has a stamp (`""`: any has); raises OSError."""
        with io_errors():
            return self.store.range(self.address.path, offset, size, stamp.partition(":")[2])

    def at(self, name: str) -> BucketPath:
        """Another object of the bucket, by its whole name."""
        return BucketPath(Address(self.address.scheme, self.address.bucket, name), self.store)

    def unlink(self, missing_ok: bool = True) -> None:
        """Remove the object; one that does not exist is ignored."""
        self.store.delete(self.address.path)

    def there(self) -> Found:
        """The object of this name; raises FileNotFoundError."""
        found = self.found()
        if found is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self))
        return found


AnyFile = Path | BucketPath
"""A file on this machine or in a bucket."""


class io_errors:
    """Turn what concerns one object into an OSError, as for a file; what concerns the bucket stays as it is."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if isinstance(error, MissingError):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)) from error
        if isinstance(error, RefusedError):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES)) from error
        if isinstance(error, ChangedError):
            raise OSError(errno.ESTALE, "it was changed after it was listed; type the same command again") from error


class BucketFile(io.RawIOBase):
    """An object that is read piece by piece, as often as needed. A change of the object meanwhile is an OSError.

    What is read ahead grows while reading goes straight on, and is small where it jumps.

    Args:
        store: the bucket.
        found: the object.
    """

    def __init__(self, store: Store, found: Found) -> None:
        super().__init__()
        self.object = found
        self._store = store
        self._at = 0
        self._begin, self._ahead = 0, b""
        self._next_bytes = _FIRST_BYTES

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """The position."""
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Change the position; nothing is read."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self.object.size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Read what is there of the wanted bytes, at least one before the end."""
        view = memoryview(buffer).cast("B")
        wanted = min(len(view), self.object.size - self._at)
        if wanted <= 0:
            return 0
        if not self._begin <= self._at < self._begin + len(self._ahead):
            self._fetch(wanted)
        start = self._at - self._begin
        data = self._ahead[start : start + wanted]
        view[: len(data)] = data
        self._at += len(data)
        return len(data)

    def _fetch(self, wanted: int) -> None:
        straight = self._at == self._begin + len(self._ahead)
        self._next_bytes = min(2 * self._next_bytes, _MOST_BYTES) if straight else _FIRST_BYTES
        size = min(max(wanted, self._next_bytes), self.object.size - self._at)
        with io_errors():
            if size > _MOST_BYTES:
                size = _MOST_BYTES
            data = self._store.range(self.object.name, self._at, size, self.object.tag)
        if not data:
            raise OSError(errno.EIO, "ends too early")
        self._begin, self._ahead = self._at, data


def object_of(file: Any) -> Found | None:
    """The object that an open file reads; None: it is a file on this machine."""
    raw = getattr(file, "raw", None)
    return raw.object if isinstance(raw, BucketFile) else None
