"""The records of a run, which lie beside its images: `run.json`, journal, manifest, lock. The folder's are here."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

from diffclean.data.atomic import (
    clean_temporaries,
    open_plain,
    read_plain,
    sync_folders,
    whole_file,
    write_error,
    write_new,
    write_whole,
)
from diffclean.data.lock import Lock
from diffclean.errors import DiffcleanError

NAMES_OF_EMPTY = ("lost+found",)
"""What a fresh disk has is no content; hidden files (our lock, .gitkeep) are none either."""


class Log(Protocol):
    """Lines that are appended for good."""

    @property
    def where(self) -> str:
        """What messages call it."""

    def lines(self) -> Iterator[bytes]:
        """All of it from the first; each line with its end, the last one perhaps without."""

    def read(self, offset: int, length: int) -> bytes:
        """Bytes in the middle."""

    def append(self, data: bytes) -> int:
        """Add whole lines, and return where they begin; then they would outlive a power cut.

        Raises:
            WriteError: they cannot be written; the log is as it was.
        """

    def truncate(self, size: int) -> None:
        """Cut off what lies behind `size` bytes."""

    def close(self) -> None:
        """Let go of it; twice does no harm."""


class Records(Protocol):
    """A few named files of bytes, each of which appears whole."""

    @property
    def where(self) -> str:
        """What messages call the place."""

    def hold(self, owner: str) -> AbstractContextManager[object]:
        """Be the only writer, of all or of a shard named `owner`; raises `DiffcleanError` where another one writes."""

    def sweep(self, owner: str) -> None:
        """Remove what killed runs left half-written: those of the same owner at least, and none that lives."""

    def strangers(self) -> list[str]:
        """What else is there already, sorted; the place is made if it is missing."""

    def read(self, name: str) -> bytes | None:
        """A file; None: there is none. Raises `DiffcleanError` where it cannot be read."""

    def write(self, name: str, data: bytes) -> None:
        """Write or replace a file; raises `WriteError`."""

    def write_new(self, name: str, data: bytes) -> bool:
        """Write a file unless it is there; of two callers at once, one does. Returns whether this one did."""

    def stream(self, name: str) -> AbstractContextManager[BinaryIO]:
        """Write a file piece by piece; it appears when the block ends, or never if it raises."""

    def log(self, name: str, write: bool = True) -> Log:
        """Open or begin a log; without `write`, one that is missing is empty."""


class FolderRecords:
    """Records as files in a folder.

    Args:
        folder: made when the first is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def where(self) -> str:
        """The folder."""
        return str(self.folder)

    def hold(self, owner: str) -> AbstractContextManager[object]:
        """See `Lock`."""
        return Lock(self.folder, owner)

    def sweep(self, owner: str) -> None:
        """See `clean_temporaries`."""
        clean_temporaries(self.folder)

    def strangers(self) -> list[str]:
        """What is in the folder, without hidden files."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            names = [path.name for path in self.folder.iterdir()]
        except OSError as error:
            raise write_error(error, self.folder) from error
        return sorted(name for name in names if name[0] != "." and name not in NAMES_OF_EMPTY)

    def read(self, name: str) -> bytes | None:
        """See `read_plain`."""
        path = self.folder / name
        try:
            return read_plain(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise DiffcleanError(f"{path} cannot be read ({error.strerror}).") from error

    def write(self, name: str, data: bytes) -> None:
        """See `write_whole`."""
        write_whole(self.folder / name, data)

    def write_new(self, name: str, data: bytes) -> bool:
        """See `atomic.write_new`."""
        return write_new(self.folder / name, data)

    @contextmanager
    def stream(self, name: str) -> Iterator[BinaryIO]:
        """See `whole_file`."""
        with whole_file(self.folder / name) as file:
            yield file

    def log(self, name: str, write: bool = True) -> Log:
        """See `FileLog`."""
        return FileLog(self.folder / name, write)


class FileLog:
    """A log in a file; a link in its place is not followed and a pipe is not waited for.

    Args:
        path: of the file; begun where it is missing and `write` is set.
        write: False: it is only read.

    Raises:
        WriteError: it cannot be opened for writing.
        DiffcleanError: it cannot be read.
    """

    def __init__(self, path: Path, write: bool = True) -> None:
        self.path = path
        mode = os.O_RDWR | os.O_CREAT | os.O_APPEND if write else os.O_RDONLY
        self._descriptor = -1
        try:
            self._descriptor = open_plain(path, mode)
            if write:
                sync_folders(path.parent)
        except DiffcleanError:
            self.close()
            raise
        except OSError as error:
            self.close()
            if not write and isinstance(error, FileNotFoundError):
                return
            if write:
                raise write_error(error, path) from error
            raise DiffcleanError(f"{path} cannot be read ({error.strerror}).") from error

    @property
    def where(self) -> str:
        """The path."""
        return str(self.path)

    def lines(self) -> Iterator[bytes]:
        """All of it; none where there is no file."""
        if self._descriptor >= 0:
            with os.fdopen(os.dup(self._descriptor), "rb") as file:
                file.seek(0)
                yield from file

    def read(self, offset: int, length: int) -> bytes:
        """Bytes in the middle."""
        return os.pread(self._descriptor, length, offset)

    def append(self, data: bytes) -> int:
        """Add lines; one fsync a call."""
        before = os.fstat(self._descriptor).st_size
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
            os.fsync(self._descriptor)
        except OSError as error:
            os.ftruncate(self._descriptor, before)  # half a line must not run into the next one
            raise write_error(error, self.path) from error
        return before

    def truncate(self, size: int) -> None:
        """Cut off the end; nothing is written where there is nothing to cut."""
        try:
            if os.fstat(self._descriptor).st_size > size:
                os.ftruncate(self._descriptor, size)
                os.fsync(self._descriptor)
        except OSError as error:
            raise write_error(error, self.path) from error

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
