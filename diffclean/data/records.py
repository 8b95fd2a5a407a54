"""The records of a run, which are stored beside its images: `run.json`, journal, manifest and lock.

This file holds their interface and the records in a folder.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

from diffclean.data.atomic import (
    clean_temporaries,
    make_folders,
    open_plain,
    read_plain,
    sync_file,
    sync_folders,
    whole_file,
    write_error,
    write_new,
    write_whole,
)
from diffclean.data.lock import Lock
from diffclean.errors import DiffcleanError

NAMES_OF_EMPTY = ("lost+found",)
"""A folder with only these names counts as empty, because a new disk has them. Hidden files (our lock, .gitkeep) are
ignored too."""


class Log(Protocol):
    """A file to which lines are appended permanently."""

    @property
    def where(self) -> str:
        """The name of the log in messages."""

    def lines(self) -> Iterator[bytes]:
        """All lines from the first, each with its line end; the last one may lack it."""

    def read(self, offset: int, length: int) -> bytes:
        """Read `length` bytes from `offset`."""

    def append(self, data: bytes) -> int:
        """Add whole lines and return the offset where they begin. They are then safe from a power cut.

        Raises:
            WriteError: the lines cannot be written; the log is unchanged.
        """

    def truncate(self, size: int) -> None:
        """Remove everything after the first `size` bytes."""

    def close(self) -> None:
        """Close the log. A second call does nothing."""


class Records(Protocol):
    """A few named files of bytes, each of which is written whole or not at all."""

    @property
    def where(self) -> str:
        """The name of the place in messages."""

    def hold(self, owner: str) -> AbstractContextManager[object]:
        """Become the only writer, of everything or of a shard named `owner`.

        Raises:
            DiffcleanError: another process is writing.
        """

    def sweep(self, owner: str) -> None:
        """Remove incomplete files of killed runs: at least those of the same owner, and none of a running process."""

    def strangers(self) -> list[str]:
        """The names of other files that exist there, sorted."""

    def read(self, name: str) -> bytes | None:
        """The content of a file, or None if there is none; raises `DiffcleanError` if it cannot be read."""

    def write(self, name: str, data: bytes) -> None:
        """Write or replace a file; raises `WriteError`."""

    def write_new(self, name: str, data: bytes) -> bool:
        """Write a file unless it exists, and return whether it was written.

        Of two simultaneous callers, one writes it.
        """

    def stream(self, name: str) -> AbstractContextManager[BinaryIO]:
        """Write a file piece by piece. It appears when the block ends, or never if the block raises."""

    def log(self, name: str, write: bool = True) -> Log:
        """Open or create a log. Without `write`, a missing log is empty."""


class FolderRecords:
    """Records as files in a folder.

    Args:
        folder: the folder; it is created when the first record is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def where(self) -> str:
        """The path of the folder."""
        return str(self.folder)

    def hold(self, owner: str) -> AbstractContextManager[object]:
        """See `Lock`."""
        return Lock(self.folder, owner)

    def sweep(self, owner: str) -> None:
        """See `clean_temporaries`."""
        clean_temporaries(self.folder)

    def strangers(self) -> list[str]:
        """The names in the folder, without hidden files."""
        try:
            names = [path.name for path in self.folder.iterdir()]
        except FileNotFoundError:
            return []
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
        make_folders(self.folder)
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
    """A log in a file. A link in its place is not followed, and a pipe in its place is not waited for.

    Args:
        path: the path of the file; it is created if it is missing and `write` is True.
        write: False: the file is only read.

    Raises:
        WriteError: the file cannot be opened for writing.
        DiffcleanError: the file cannot be read.
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
        """The path of the file."""
        return str(self.path)

    def lines(self) -> Iterator[bytes]:
        """All lines; none if there is no file."""
        if self._descriptor >= 0:
            with os.fdopen(os.dup(self._descriptor), "rb") as file:
                file.seek(0)
                yield from file

    def read(self, offset: int, length: int) -> bytes:
        """Read `length` bytes from `offset`."""
        return os.pread(self._descriptor, length, offset)

    def append(self, data: bytes) -> int:
        """Add lines, with one fsync per call."""
        before = os.fstat(self._descriptor).st_size
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
            sync_file(self._descriptor)
        except OSError as error:
            os.ftruncate(self._descriptor, before)  # the next line must not be appended to half a line
            raise write_error(error, self.path) from error
        return before

    def truncate(self, size: int) -> None:
        """Remove the end; nothing is written if there is nothing to remove."""
        try:
            if os.fstat(self._descriptor).st_size > size:
                os.ftruncate(self._descriptor, size)
                sync_file(self._descriptor)
        except OSError as error:
            raise write_error(error, self.path) from error

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
