"""What differs between a folder on this machine and one in a bucket, for formats that write files to either."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from diffclean.data.address import is_address
from diffclean.data.atomic import make_folders, whole_file, write_error
from diffclean.data.bucket_path import AnyFile, BucketPath
from diffclean.data.bucket_records import BucketRecords
from diffclean.data.records import FolderRecords, Records


def place_of(where: str | os.PathLike[str]) -> AnyFile:
    """The path of a folder or file, on this machine or in the bucket that an address names."""
    return BucketPath.of(where) if is_address(where) else Path(where)


def records_at(place: AnyFile) -> Records:
    """The records of a run in a folder."""
    return BucketRecords(place) if isinstance(place, BucketPath) else FolderRecords(place)


def real(place: AnyFile) -> str:
    """How another process finds a file or folder: its path without links in the folders above it, or its address."""
    if isinstance(place, BucketPath):
        return str(place)
    return os.path.realpath(place) if place.exists() else os.path.join(os.path.realpath(place.parent), place.name)  # noqa: PTH118


@contextmanager
def whole_at(path: AnyFile) -> Iterator[BinaryIO]:
    """Yield a file to write piece by piece; it appears as a whole when the block ends without an error.

    A file for a bucket is a temporary one on this machine until then.

    Raises:
        WriteError, StoreError: it cannot be written.
    """
    if isinstance(path, BucketPath):
        with tempfile.TemporaryFile() as file:
            yield file
            file.flush()
            path.store.put(path.address.path, file)
    else:
        make_folders(path.parent)
        with whole_file(path) as whole:
            yield whole


@contextmanager
def on_disk(path: AnyFile, file: BinaryIO) -> Iterator[tuple[str, int]]:
    """Yield a place on this machine where the content of an open file can be mapped into memory, and what it takes.

    The copy of an object of a bucket goes when the block ends; a map of it stays usable.
    """
    if not isinstance(path, BucketPath):
        yield str(path), 0
        return
    with tempfile.NamedTemporaryFile() as copy:
        shutil.copyfileobj(file, copy, 8 * 2**20)
        copy.flush()
        yield copy.name, path.stat().st_size


def write_at(path: AnyFile, data: bytes) -> None:
    """Write a small file as a whole; raises as `whole_at` does."""
    with whole_at(path) as file:
        file.write(data)


def remove(path: AnyFile) -> None:
    """Remove a file, if it exists; raises as `whole_at` does."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise write_error(error, Path(str(path))) from error


def remove_below(folder: AnyFile) -> None:
    """Remove a folder with what is in it, as far as that is possible."""
    if isinstance(folder, BucketPath):
        folder.store.delete(*(found.name for chunk in folder.store.below(folder.address.path) for found in chunk))
    else:
        shutil.rmtree(folder, ignore_errors=True)
