"""Writes files that appear as a whole or not at all, and never outside the output folder."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from threading import Lock
from typing import BinaryIO

from diffclean.data.keys import path_from_key
from diffclean.errors import DiffcleanError

log = logging.getLogger(__name__)

# The name is hidden and not that of an image, so data set readers skip it. It contains the shard's name for people.
_TEMPORARY = re.compile(r"\.diffclean-(?:\d+-of-\d+-)?[0-9a-f]{16}\.part")
_REASONS = {
    errno.ENOSPC: ("the disk is full", "Free some space"),
    errno.EDQUOT: ("the disk quota is used up", "Free some space"),
    errno.EFBIG: ("the file is larger than is allowed here", "Raise the limit (ulimit -f)"),
    errno.EROFS: ("the file system is read-only", "Name another output folder (`out`), or mount it writable"),
    errno.EACCES: ("permission denied", "Name another output folder (`out`), or make it writable for this user"),
    errno.EPERM: ("permission denied", "Name another output folder (`out`), or make it writable for this user"),
    errno.EEXIST: ("something that is no folder is in its way", "Name another output folder (`out`)"),
    errno.ENOTDIR: ("something that is no folder is in its way", "Name another output folder (`out`)"),
    errno.EISDIR: ("a folder of that name is in its way", "Move that folder away"),
    errno.ENAMETOOLONG: ("the name is too long", "Rename the image in the source"),
    errno.EILSEQ: ("this disk does not take such a name", "Rename the image in the source"),
    errno.EINVAL: ("this disk does not take such a name", "Rename the image in the source"),
}
_OF_THE_NAME = (errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL, errno.EISDIR)
_FULL = (errno.ENOSPC, errno.EDQUOT)
_NO_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


class WriteError(DiffcleanError):
    """The output cannot be written, and continuing would only fail again."""


class NameWriteError(WriteError):
    """This name cannot be written on this disk; other images are not affected."""


def write_error(error: OSError, path: Path) -> WriteError:
    """Explain what an `OSError` means and what to do about it."""
    reason, remedy = _REASONS.get(error.errno or 0, (error.strerror or str(error), "Mend that"))
    kind = NameWriteError if error.errno in _OF_THE_NAME else WriteError
    return kind(f"Cannot write {str(path)!a}: {reason}.", f"{remedy} and run the same command again: it resumes.")


def is_full(error: WriteError) -> bool:
    """Whether a file could not be written because the disk is full or the quota is used up."""
    cause = error.__cause__
    return isinstance(cause, OSError) and cause.errno in _FULL


def write_whole(path: Path, data: bytes, *, owner: str = "", sync_folder: bool = True) -> None:
    """Write a file so that it exists completely or not at all, even after a crash or a power cut.

    Args:
        path: the path of the file. An existing file is replaced. The folder must exist.
        data: the whole content.
        owner: the name of a shard, which becomes a part of the temporary file's name.
        sync_folder: False if the caller makes the rename durable itself, once for many files (see `Writer`).

    Raises:
        WriteError: the disk is full or read-only, a permission is missing ...; the temporary file is removed, and
            `path` is unchanged.
    """
    with whole_file(path, owner=owner, sync_folder=sync_folder) as file:
        file.write(data)


@contextmanager
def whole_file(path: Path, *, owner: str = "", sync_folder: bool = True) -> Iterator[BinaryIO]:
    """Yield a file to write piece by piece; it appears as a whole when the block ends without an error.

    The arguments and errors are those of `write_whole`.
    """
    try:
        with _temporary(path.parent, owner) as (file, temporary):
            yield file
            _make_durable(file)
            temporary.replace(path)
        if sync_folder:
            sync_folders(path.parent)
    except OSError as error:
        raise write_error(error, path) from error


@contextmanager
def _temporary(folder: Path, owner: str = "") -> Iterator[tuple[BinaryIO, Path]]:
    """Yield a new file, locked during the block so that no other process sweeps it; an error removes it."""
    # `tempfile` would make the images unreadable for other users.
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    while True:
        path = folder / _temporary_name(owner)
        descriptor = os.open(path, flags, 0o666)
        if _locked(descriptor, path):
            break
        os.close(descriptor)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file, path
    except BaseException:
        path.unlink(missing_ok=True)
        raise


@contextmanager
def temporary_folder(beside: Path) -> Iterator[Path]:
    """Yield a folder to fill and then rename. If it is not renamed, it is removed after the block.

    Folders that killed processes have left in the same place are removed first.

    Args:
        beside: the future path of the folder. Its parent exists.
    """
    clean_temporaries(beside.parent, below=False)
    while True:
        path = beside.parent / _temporary_name()
        path.mkdir()
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        if _locked(descriptor, path):
            break
        os.close(descriptor)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(descriptor)


def _temporary_name(owner: str = "") -> str:
    return f".diffclean-{owner}-{secrets.token_hex(8)}.part" if owner else f".diffclean-{secrets.token_hex(8)}.part"


def _locked(descriptor: int, path: Path) -> bool:
    """Lock what was just made; return False if another process swept it in between."""
    with suppress(OSError):  # On a disk without locks, nobody sweeps either.
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    return os.path.lexists(path)


def _make_durable(file: BinaryIO) -> None:
    file.flush()
    sync_file(file.fileno())


def sync_file(descriptor: int) -> None:
    """Make the content of an open file durable; on a disk that cannot do this, one warning says so.

    Raises:
        OSError: the disk is full or damaged.
    """
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise
        _warn_of_sync("the content of files")


def write_new(path: Path, data: bytes) -> bool:
    """Write a file like `write_whole`, unless it exists already. Of two simultaneous callers, one writes it.

    Returns:
        Whether this call wrote the file.

    Raises:
        WriteError: as in `write_whole`.
    """
    try:
        with _temporary(path.parent) as (file, whole):
            file.write(data)
            _make_durable(file)
            try:
                path.hardlink_to(whole)
            except FileExistsError:
                return False
            except OSError:  # The disk has no hard links; this is the best that is possible there.
                whole.replace(path)
            finally:
                whole.unlink(missing_ok=True)
        sync_folders(path.parent)
    except OSError as error:
        raise write_error(error, path) from error
    return True


def make_folders(folder: Path) -> None:
    """Make a folder and its parents. `mkdir(parents=True)` recurses, and a path can have 2000 folders; this is a loop.

    Raises:
        WriteError: the folder cannot be made.
    """
    missing = []
    try:
        while not folder.is_dir():
            missing.append(folder)
            folder = folder.parent
        for child in reversed(missing):
            child.mkdir(exist_ok=True)
    except OSError as error:
        raise write_error(error, folder) from error


def check_writable(folder: Path) -> None:
    """Refuse a folder in which this user cannot write, or that this user cannot make. Nothing is written.

    Args:
        folder: the folder. If it does not exist, the nearest one above it that does is looked at.

    Raises:
        WriteError: a permission is missing, or the file system is read-only.
    """
    place = folder
    while not os.access(place, os.F_OK) and place != place.parent:
        place = place.parent
    effective = os.access in os.supports_effective_ids
    if place.is_dir() and os.access(place, os.W_OK | os.X_OK, effective_ids=effective):
        return
    if not place.is_dir():
        number = errno.ENOTDIR
    else:
        number = errno.EROFS if os.statvfs(place).f_flag & os.ST_RDONLY else errno.EACCES
    error = OSError(number, os.strerror(number), str(place))
    raise write_error(error, folder) from error


def sync_folders(*folders: Path) -> None:
    """Make renames in these folders durable; on a disk that cannot do this (CIFS, vboxsf), one warning says so."""
    for folder in folders:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        except OSError as error:
            if error.errno not in (*_NO_SYNC, errno.EBADF):
                raise
            _warn_of_sync("names")
        finally:
            os.close(descriptor)


@cache
def _warn_of_sync(what: str) -> None:
    log.warning("The disk cannot make %s durable: after a power cut, files written last may be missing.", what)


def read_plain(path: Path, limit_bytes: int = 64 * 2**20) -> bytes:
    """Return the bytes of a plain file. This follows no link, and never waits as reading a pipe would.

    Raises:
        OSError: the file cannot be read.
        DiffcleanError: the path is not a plain file, or the file is larger than `limit_bytes`.
    """
    with os.fdopen(open_plain(path, os.O_RDONLY), "rb") as file:
        data = file.read(limit_bytes + 1)
    if len(data) > limit_bytes:
        raise DiffcleanError(
            f"{str(path)!a} is larger than {limit_bytes / 2**20:.0f} MiB, the limit for such a file.",
            "Something other than diffclean wrote it: move it away, or name another `out`.",
        )
    return data


def open_plain(path: Path, flags: int) -> int:
    """Return the descriptor of a plain file. This follows no link, and never waits as opening a pipe would.

    Raises:
        OSError: the file cannot be opened.
        DiffcleanError: the path is not a plain file.
    """
    try:
        descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EMLINK, errno.ENXIO, errno.EISDIR):
            raise _not_plain(path) from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _not_plain(path)
    return descriptor


def _not_plain(path: Path) -> DiffcleanError:
    return DiffcleanError(
        f"{str(path)!a} is not a plain file.", "Something else put it there: move it away, or name another `out`."
    )


def contained(out: Path, key: str) -> Path:
    """Return the path of `key` under `out`.

    Raises:
        BadKeyError: `key` is not a key (absolute, `..`).
        WriteError: a symbolic link on the way leads out of `out`.
    """
    path = out / path_from_key(key)
    root = Path(os.path.realpath(out))
    folder = Path(os.path.realpath(path.parent))
    if folder != root and root not in folder.parents:
        raise WriteError(
            f"{str(path)!a} is reached through a link that leads out of {out}.",
            "Remove the link, or name another `out`.",
        )
    return path


class Writer:
    """Writes files under one output folder; `sync()` after each batch makes their names durable.

    Args:
        out: the output folder.
        owner: the name of a shard, which becomes a part of the names of temporary files.
    """

    def __init__(self, out: Path, owner: str = "") -> None:
        self.out = out
        self.owner = owner
        self._unsynced: set[Path] = set()
        self._noting = Lock()  # Threads write while one of them syncs.

    def write(self, key: str, data: bytes) -> Path:
        """Write one file, make its folders, and return its path.

        Raises:
            BadKeyError: `key` leads out of the folder.
            WriteError: the file cannot be written, or a link leads out of the folder.
        """
        path = contained(self.out, key)
        make_folders(path.parent)
        write_whole(path, data, owner=self.owner, sync_folder=False)
        folders = [parent for parent in path.parents if parent == self.out or self.out in parent.parents]
        with self._noting:
            self._unsynced.update(folders)
        return path

    def sync(self) -> None:
        """Return when every file written so far is safe from a power cut."""
        with self._noting:
            folders, self._unsynced = self._unsynced, set()
        try:
            sync_folders(*sorted(folders))
        except OSError as error:
            raise write_error(error, self.out) from error


def clean_temporaries(folder: Path, below: bool = True) -> int:
    """Remove incomplete files of killed processes. The files of running processes are locked and stay.

    Args:
        folder: the folder to search; links are not followed.
        below: whether to search its sub-folders, too.

    Returns:
        The number of removed files.
    """
    count = 0
    for place, folders, names in os.walk(folder):
        for name in filter(_TEMPORARY.fullmatch, [*names, *folders]):
            count += _swept(Path(place, name))
        if not below:
            break
        folders[:] = [name for name in folders if not _TEMPORARY.fullmatch(name)]
    return count


def _swept(path: Path) -> bool:
    """Remove a temporary file or folder if it is not locked and can be removed."""
    try:
        # A file is opened for writing, because some network disks require that for a lock.
        how = os.O_RDONLY | os.O_DIRECTORY if path.is_dir() else os.O_RDWR
        descriptor = os.open(path, how | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            shutil.rmtree(path)
        else:
            path.unlink()
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True
