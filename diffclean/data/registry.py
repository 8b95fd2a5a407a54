"""The formats of data sets, and the functions that open them. Only this module names formats.

A format is a module with `reads(where)`, `open_source(where, **options)` and `open_sink(where, **options)`, and a line
in `FORMATS`. One of files that hold many images each has its class of `archive.Archive` there as `ARCHIVE`.
"""

from __future__ import annotations

import importlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from os import PathLike
from pathlib import Path
from typing import Any, Protocol, cast

from diffclean.data.address import is_address, spelled
from diffclean.data.archive import Archive
from diffclean.data.formats import heif_is_there
from diffclean.data.keys import key_from_path
from diffclean.data.passed_over import is_machine_made
from diffclean.data.shard_files import plain_stem
from diffclean.data.sinks import Sink
from diffclean.data.sources import Description, Source
from diffclean.errors import DiffcleanError

FOLDER = "folder"
FORMATS = {
    "webdataset": "diffclean.data.webdataset",
    "huggingface": "diffclean.data.saved",
    "parquet": "diffclean.data.parquet",
    "npz": "diffclean.data.array_file",
    FOLDER: "diffclean.data.folder",
}
"""Name -> module, in the order in which they are asked; the last takes whatever no other wants."""


class Format(Protocol):
    """What the module of a format must have."""

    def reads(self, where: str) -> bool:
        """Whether a path or an address is of this format. The check is fast and never raises if nothing is there."""

    def open_source(self, where: str, **options: Any) -> Source:
        """Open a data set for reading; raises `DiffcleanError` if nothing is there.

        Every format accepts the options `byte_limit` (the largest file that is read, in bytes) and `label_from` (where
        labels are, see `labels`), and None for either.
        """

    def open_sink(self, where: str, **options: Any) -> Sink:
        """Open a place for writing; nothing is created yet."""


def open_source(where: str | PathLike[str] | Description, **options: Any) -> Source:
    """Open a data set.

    Args:
        where: a path or an address, or the result of `Source.describe`.
        options: options of the format.

    Raises:
        DiffcleanError: there is no data set, or it cannot be read.
    """
    if isinstance(where, Description):
        return _module(where.format).open_source(where.where, **where.options)
    where = spelled(where)
    return _module(format_of(where)).open_source(where, **options)


def open_sink(where: str | PathLike[str] | Description, format: str | None = None) -> Sink:
    """Open a place to write a data set to; nothing is created yet.

    Args:
        where: a path or an address, or the result of `Sink.describe`.
        format: a name in `FORMATS`; None: the format of `where`.
    """
    if isinstance(where, Description):
        return _module(where.format).open_sink(where.where, **where.options)
    where = spelled(where)
    return _module(format or format_of(where)).open_sink(where)


def format_of(where: str) -> str:
    """The name of the format of a path or an address."""
    *asked, last = FORMATS
    where = spelled(where)
    try:
        return next((name for name in asked if _module(name).reads(where)), last)
    except OSError:  # a name that no disk takes, a folder that may not be looked into: said when it is opened
        return last


@dataclass(frozen=True)
class FormatStatus:
    """Whether a format works here.

    Attributes:
        name: in `FORMATS`.
        usable: whether data sets can be read and written.
        reason: what is used for it, or what is missing.
        hint: what to type about that; empty where nothing is missing.
    """

    name: str
    usable: bool
    reason: str
    hint: str = ""


def statuses() -> list[FormatStatus]:
    """Of every format; a module that needs a library beside those of diffclean says so in `NEEDS`: library -> extra."""
    return [_status(name) for name in FORMATS]


def _status(name: str) -> FormatStatus:
    needs: dict[str, str] = getattr(_module(name), "NEEDS", {})
    missing = {library: extra for library, extra in needs.items() if find_spec(library) is None}
    if missing:
        return FormatStatus(name, False, f"{', '.join(missing)} is not installed", _install(missing.values()))
    if name == FOLDER and not heif_is_there():
        return FormatStatus(name, True, "images of every kind but HEIC", _install(["heic"]))
    return FormatStatus(name, True, "read and written")


def _install(extras: Iterable[str]) -> str:
    return f"pip install 'diffclean[{','.join(sorted(set(extras)))}]'"


def is_there(where: str | PathLike[str]) -> bool:
    """Whether there is a data set that can be opened."""
    try:
        open_source(where)
    except DiffcleanError:
        return False
    return True


def archive_of(name: str) -> Archive | None:
    """The kind of file of a format of files that hold many images each; None: it is another kind of format."""
    kind = getattr(_module(name), "ARCHIVE", None)
    archive: Archive | None = kind() if kind is not None else None
    return archive


def stem_of(where: str) -> str:
    """What a data set is called, without the endings and numbers of its files; a folder by its own name."""
    where = spelled(where)
    if not is_address(where) and Path(where).is_dir():
        return where
    for name in FORMATS:
        archive = archive_of(name)
        if archive is not None and where.endswith(archive.suffix):
            return plain_stem(where, archive.suffix) or str(Path.cwd())
    return where


def folders_without_images(where: str | PathLike[str], classes: Collection[str]) -> list[str]:
    """The folders of an image folder, sorted, that might be meant as classes and are none, because no image is in them.

    In other formats, and in buckets, there are no such folders.

    Args:
        where: the data set.
        classes: the names of its classes.
    """
    if is_address(where) or format_of(str(where)) != FOLDER:
        return []
    folders = (path for path in Path(where).iterdir() if path.is_dir() and path.name[0] != ".")
    names = {key_from_path(path.name) for path in folders if not is_machine_made(path.name)}
    return sorted(names - set(classes))


def _module(name: str) -> Format:
    return cast("Format", importlib.import_module(FORMATS[name]))
