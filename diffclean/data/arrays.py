"""Reads arrays in an `.npz` file. Headers are read first and trusted only if the file can hold what they promise."""

from __future__ import annotations

import io
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffclean.data.bucket_path import AnyFile
from diffclean.data.item import ReadError
from diffclean.data.shard_files import opened, stamp_of

_MOST_BYTES = 64 * 2**30
_LABELS_BYTES = 2 * 2**30
_HEADER_BYTES = 2**16
_AT_ONCE = 2**20
_SMALL_BYTES, _MOST_PACKED = 2**30, 200
"""An array above the first that says it is more than so many times as large as its file is a bomb."""


@dataclass(frozen=True)
class Array:
    """The content of a header.

    Attributes:
        name: the name in the file, without `.npy`.
        shape, dtype: the shape and the dtype of the array.
        fortran: whether the first axis varies fastest.
        header: the number of bytes before the first number.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool
    header: int

    @property
    def bytes(self) -> int:
        """The size of the numbers in bytes."""
        return prod(self.shape) * self.dtype.itemsize

    @property
    def is_images(self) -> bool:
        """Whether the array looks like images: uint8 of (N, H, W), (N, H, W, 1 or 3) or (N, 1 or 3, H, W)."""
        few = (1, 3)
        shaped = len(self.shape) == 3 or (len(self.shape) == 4 and (self.shape[3] in few or self.shape[1] in few))
        return self.dtype == np.uint8 and shaped and 0 not in self.shape


def unpacked(archive: zipfile.ZipFile, array: Array) -> NDArray[np.uint8]:
    """Unpack an array to a temporary file and return a view of it; it may be larger than memory. Raises ReadError."""
    target = tempfile.TemporaryFile()  # noqa: SIM115 - the array keeps it
    left = array.bytes
    with archive.open(f"{array.name}.npy") as source:
        source.read(array.header)
        while left and (some := source.read(min(_AT_ONCE, left))):
            target.write(some)
            left -= len(some)
    if left:
        raise ReadError(f"its array {array.name} ends too early")
    target.flush()
    order: Any = "F" if array.fortran else "C"
    return np.memmap(target, np.uint8, "r", 0, array.shape, order)


def arrays_in(archive: zipfile.ZipFile) -> list[Array]:
    """Read the headers and nothing else."""
    found = []
    for info in archive.infolist():
        if not info.filename.endswith(".npy"):
            continue
        with archive.open(info) as file:
            start = io.BytesIO(file.read(_HEADER_BYTES))
        try:
            version = np.lib.format.read_magic(start)
            read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
            shape, fortran, dtype = read(start)
        except (ValueError, KeyError) as error:
            raise ReadError(f"its array {info.filename[:80]!a} has no header that can be read") from error
        array = Array(info.filename.removesuffix(".npy"), tuple(shape), dtype, fortran, start.tell())
        packed = max(_SMALL_BYTES, _MOST_PACKED * info.compress_size)
        if min(array.shape, default=0) < 0 or array.bytes > min(info.file_size, _MOST_BYTES, packed):
            raise ReadError(
                f"its array {array.name} says that it has {array.bytes:,} bytes, more than can be in the file"
            )
        found.append(array)
    return found


def loaded(archive: zipfile.ZipFile, array: Array) -> NDArray[Any]:
    """Load an array; raises ReadError if it is larger than labels can be, ValueError if it holds objects."""
    if array.bytes > _LABELS_BYTES:
        raise ReadError(f"its array {array.name} has {array.bytes:,} bytes; at most {_LABELS_BYTES:,} are read")
    with archive.open(f"{array.name}.npy") as file:
        loaded: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
    return loaded


@contextmanager
def array_archive(path: AnyFile) -> Iterator[tuple[str, zipfile.ZipFile]]:
    """Open an .npz file and return it with its stamp; its errors become ReadErrors."""
    try:
        with opened(path) as file, zipfile.ZipFile(file) as archive:
            yield stamp_of(file), archive
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError) as error:
        raise ReadError(
            f"{path} cannot be read as an array file: {str(error)[:200]}", "Expected what np.savez(FILE, ...) writes."
        ) from error
