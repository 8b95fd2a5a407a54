"""Finds the files of a data set that consists of one file, a pattern of files, or a folder of them."""

from __future__ import annotations

import fnmatch
import glob
import itertools
import os
import re
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from diffclean.data.address import is_address
from diffclean.data.bucket_path import AnyFile, BucketPath, object_of
from diffclean.data.formats import is_taken
from diffclean.data.item import ReadError
from diffclean.data.keys import BadKeyError, key_bytes, key_from_path
from diffclean.data.labels import SPLITS
from diffclean.data.passed_over import is_own
from diffclean.data.places import place_of
from diffclean.errors import DiffcleanError

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"([0-9]+)\.\.([0-9]+)")
_MOST = 1_000_000
_LOOKED_AT = 10_000
"""Names in a folder after which it is taken to be what it was so far."""


def plain_stem(where: str, suffix: str) -> str:
    """Return the name for a data set: `a/x-{000..099}.tar` -> `a/x`, `a/x.tar` -> `a/x`, `a/*.tar` -> `a`."""
    folder, _, name = where.rpartition("/")
    stem = re.split(r"[{*?\[]", name, maxsplit=1)[0].removesuffix(suffix).rstrip("-_.")
    parts = [part for part in (folder, stem) if part]
    return ("/" if where.startswith("/") and not folder else "") + "/".join(parts)


def is_of(where: str, suffix: str) -> bool:
    """Whether a path is a file with this suffix, a pattern of them, or a folder that holds them and no images."""
    path = place_of(where)
    if isinstance(path, BucketPath):
        return where.endswith(suffix) or holds(path, suffix)
    try:
        if path.is_dir():
            return holds(path, suffix)
    except OSError:
        return False
    return where.endswith(suffix)


def holds(folder: AnyFile, suffix: str, inner: str = "") -> bool:
    """Whether a folder has files with this suffix and neither images nor folders beside them, except hidden ones.

    Args:
        folder: the folder to check.
        suffix: the suffix of the files.
        inner: the only sub-folder, which contains the files. `""`: they lie in `folder` itself.
    """
    if isinstance(folder, Path) and not folder.is_dir():
        return False
    found = False
    for name, is_dir in itertools.islice(entries_of(folder), _LOOKED_AT):
        if name.startswith(".") or is_own(name):
            continue
        is_inner = name == inner and is_dir
        if is_taken(name.rpartition(".")[2].lower()) or (is_dir and not is_inner):
            return False
        found = found or is_inner or (not inner and name.endswith(suffix))
    return found and (not inner or holds(folder / inner, suffix))


def entries_of(folder: AnyFile) -> Iterator[tuple[str, bool]]:
    """The names in a folder, each with whether it is a folder itself."""
    if isinstance(folder, BucketPath):
        yield from folder.entries()
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            yield entry.name, entry.is_dir()


def files_of(where: str, suffix: str, what: str, ending: str) -> dict[str, AnyFile]:
    """Return part -> file, sorted like their keys. A part is the path of a file below the folder that holds them all.

    Args:
        where: a file, a pattern, or a folder.
        suffix: the suffix of the files, with its dot.
        what: the name of the format, for messages.
        ending: what follows a part in the keys of its images.

    Raises:
        DiffcleanError: there is no file, or a file that the pattern lists does not exist.
    """
    in_bucket = is_address(where)
    paths: list[AnyFile] = list(named_in_bucket(where, suffix) if in_bucket else map(Path, _named(where, suffix)))
    if missing := [path for path in paths if not in_bucket and not Path(str(path)).exists()]:
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise DiffcleanError(
            f"{missing[0]} does not exist{more}.",
            f"Expected {what}: a file, a pattern in quotes such as '{_like(where)}', or a folder.",
        )
    if not paths:
        raise DiffcleanError(
            f"{where} names no file that is there.", f"Expected {what}: a file, a pattern in quotes, or a folder."
        )
    if strange := [path for path in paths if not in_bucket and not path.is_file()]:
        raise DiffcleanError(f"{strange[0]} is not a plain file.", f"Expected {what}.")
    plain = [Path(path.address.path) if isinstance(path, BucketPath) else path for path in paths]
    root = plain[0].parent if len(plain) == 1 else Path(os.path.commonpath([path.parent for path in plain]))
    try:
        parts = {key_from_path(path.relative_to(root)): file for path, file in zip(plain, paths, strict=True)}
    except (BadKeyError, ValueError) as error:
        raise DiffcleanError(f"{where} leads through '..' in the middle of a pattern.", "Write it without.") from error
    return dict(sorted(parts.items(), key=lambda pair: key_bytes(pair[0]) + ending.encode()))


def check_one_split(where: str, parts: Iterable[str]) -> None:
    """Refuse files that are named after several parts of a data set, such as `train-00000.parquet` and `test-...`.

    Raises:
        DiffcleanError: there are such files; the message names them.
    """
    names = {re.split(r"[-_.]", part.rpartition("/")[2], maxsplit=1)[0] for part in parts}
    if len(names) > 1 and names <= SPLITS:
        first = min(names)
        raise DiffcleanError(
            f"{where} has files of several parts of a data set: {', '.join(sorted(names))}.",
            f"Give one of them with a pattern in quotes, such as '{first}-*.parquet'.",
        )


def opened(path: AnyFile) -> BinaryIO:
    """Open a plain file for reading; this never waits as for a pipe. Raises OSError or ReadError."""
    if isinstance(path, BucketPath):
        return path.open()
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise ReadError(f"{path} is not a plain file")
    return file


def stamp_of(file: BinaryIO) -> str:
    """Return a stamp that changes when a file does: its size and date, or in a bucket its tag."""
    if (there := object_of(file)) is not None:
        return there.stamp
    found = os.fstat(file.fileno())
    return f"{found.st_size}:{found.st_mtime_ns}"


def stamp_at(path: AnyFile) -> str:
    """Return the stamp of a file that is not open; raises ReadError if it does not exist."""
    try:
        if isinstance(path, BucketPath):
            return path.there().stamp
        found = path.stat()
    except OSError as error:
        raise ReadError(f"{path.name} cannot be read ({error.strerror})") from error
    return f"{found.st_size}:{found.st_mtime_ns}"


def check_unchanged(path: AnyFile, listed: str, now: str) -> None:
    """Check that a file still has the stamp that it was listed with; the stamp `""` allows any.

    Raises:
        ReadError: the file has changed since.
    """
    if listed and listed != now:
        raise ReadError(f"{path.name} was changed after it was listed; type the same command again")


def read_range(path: AnyFile, stamp: str, offset: int, size: int) -> bytes:
    """Return a range of bytes of a file, which must still have the listed stamp; the stamp `""` allows any file.

    Raises:
        ReadError: the file has changed since, or cannot be read.
    """
    try:
        if isinstance(path, BucketPath):
            data = path.read_range(offset, size, stamp)
        else:
            data = _pread(path, stamp, offset, size)
    except OSError as error:
        raise ReadError(f"{path.name} cannot be read ({error.strerror})") from error
    if len(data) < size:
        raise ReadError(f"{path.name} ends too early")
    return data


def _pread(path: Path, stamp: str, offset: int, size: int) -> bytes:
    with opened(path) as file:
        check_unchanged(path, stamp, stamp_of(file))
        data = os.pread(file.fileno(), size, offset)
        while len(data) < size and (more := os.pread(file.fileno(), size - len(data), offset + len(data))):
            data += more
    return data


def _named(where: str, suffix: str) -> Iterator[str]:
    path = Path(where)
    if path.is_dir():
        names = sorted(entry.name for entry in path.iterdir() if entry.name.endswith(suffix))
        yield from (f"{where.rstrip('/')}/{name}" for name in names if name[0] != "." and not is_own(name))
        return
    if path.exists():
        yield where
        return
    seen: set[str] = set()
    for each in itertools.islice(_expanded(where), _MOST):
        for found in sorted(glob.glob(each)) if glob.has_magic(each) else [each]:  # noqa: PTH207 - may be absolute
            if found not in seen and not is_own(found.rpartition("/")[2]):
                seen.add(found)
                yield found


def _expanded(where: str) -> Iterator[str]:
    """Expand `x-{0..2}.{a,b}` into its names, in order."""
    found = _BRACES.search(where)
    if found is None:
        yield where
        return
    for each in _alternatives(found[1]):
        yield from _expanded(where[: found.start()] + each + where[found.end() :])


def _alternatives(text: str) -> Iterator[str]:
    numbers = _RANGE.fullmatch(text)
    if numbers is None:
        yield from text.split(",")
        return
    first, last = int(numbers[1]), int(numbers[2])
    yield from (str(number).zfill(len(numbers[1])) for number in range(first, last + 1))


def _like(where: str) -> str:
    return _BRACES.sub("*", where) if _BRACES.search(where) else where


def named_in_bucket(where: str, suffix: str) -> Iterator[BucketPath]:
    """The files that an address names: one object, those of a folder, or those that match a pattern.

    Raises:
        DiffcleanError: a file that is named is not there, or a folder is a pattern.
    """
    place = BucketPath.of(where)
    names = list(itertools.islice(_expanded(place.address.path), _MOST))
    if names == [place.address.path] and not glob.has_magic(names[0]) and not place.is_file():
        inside = sorted(found.name for found in place.store.within(names[0])[1])
        mine = (name for name in inside if name.endswith(suffix))
        yield from (place.at(name) for name in mine if name.rpartition("/")[2][0] != "." and not is_own(name))
        return
    there: dict[str, list[str]] = {}
    seen: set[str] = set()
    for each in names:
        folder = each.rpartition("/")[0]
        if glob.has_magic(folder):
            raise DiffcleanError(f"{where} is a pattern of folders.", "In a bucket only the names of files can be one.")
        if folder not in there:
            there[folder] = sorted(found.name for found in place.store.within(folder)[1])
        matching = fnmatch.filter(there[folder], each) if glob.has_magic(each) else [each]
        if matching == [each] and each not in there[folder]:
            raise DiffcleanError(f"{place.at(each)} does not exist.", "Check the pattern and the name of the bucket.")
        for name in matching:
            if name not in seen and not is_own(name.rpartition("/")[2]):
                seen.add(name)
                yield place.at(name)
