"""A new folder for a data set, on disk or in a bucket, of which nothing is left if the work on it does not end well."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from diffclean.data.atomic import make_folders, sync_folders, temporary_folder, write_error
from diffclean.data.bucket_path import AnyFile, BucketPath
from diffclean.data.lease import Lease
from diffclean.errors import DiffcleanError

LOCK = ".diffclean-convert.lock"


def check_new(place: AnyFile) -> None:
    """Refuse a folder that exists, unless a killed process has left it in a bucket.

    Raises:
        DiffcleanError: something is there.
    """
    if isinstance(place, BucketPath):
        there = (place.is_file() or place.is_dir()) and not (place / LOCK).is_file()
    else:
        there = os.path.lexists(place)
    if there:
        raise DiffcleanError(f"{place} exists.", "Name another folder, or remove it.")


def new_folder(place: AnyFile) -> AbstractContextManager[AnyFile]:
    """Create a folder that a block fills, which is given the place to write to.

    On disk, the folder appears when the block has ended without an error. A bucket cannot
    rename a folder, so there each file appears when it is written. A lock lies among the files until all of them are
    there: it keeps other processes out, and marks what a killed process has left, which the next one removes.

    Raises:
        WriteError, StoreError: it cannot be written.
        DiffcleanError: another process is writing it.
    """
    return _in_bucket(place) if isinstance(place, BucketPath) else _on_disk(place)


@contextmanager
def _on_disk(place: Path) -> Iterator[AnyFile]:
    make_folders(place.absolute().parent)
    try:
        with temporary_folder(place.absolute()) as part:
            yield part
            sync_folders(part)
            part.rename(place)
            sync_folders(place.absolute().parent)
    except OSError as error:
        raise write_error(error, place) from error


@contextmanager
def _in_bucket(place: BucketPath) -> Iterator[AnyFile]:
    lock = place / LOCK
    with Lease(place.store, lock.address.path, str(place)) as lease:
        _clear(place, lock)
        try:
            yield place
        except BaseException:
            with suppress(DiffcleanError):  # what is left carries the lock, and goes when this is tried again
                lease.check()
                _clear(place, lock)
                lock.unlink()
            raise
        lease.check()
        lock.unlink()


def _clear(place: BucketPath, lock: BucketPath) -> None:
    """Remove everything but the lock."""
    names = [found.name for chunk in place.store.below(place.address.path) for found in chunk]
    place.store.delete(*(name for name in names if name != lock.address.path))
