"""The formats of data sets, and the functions that open them. Only this module names formats.

A format is a module with `reads(where)`, `open_source(where, **options)` and `open_sink(where, **options)`, and a line
in `FORMATS`.
"""

from __future__ import annotations

import importlib
from os import PathLike
from typing import Any, Protocol, cast

from diffclean.data.sinks import Sink
from diffclean.data.sources import Description, Source

FORMATS = {"folder": "diffclean.data.folder"}
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
    return _module(format_of(str(where))).open_source(str(where), **options)


def open_sink(where: str | PathLike[str] | Description, format: str | None = None) -> Sink:
    """Open a place to write a data set to; nothing is created yet.

    Args:
        where: a path or an address, or the result of `Sink.describe`.
        format: a name in `FORMATS`; None: the format of `where`.
    """
    if isinstance(where, Description):
        return _module(where.format).open_sink(where.where, **where.options)
    return _module(format or format_of(str(where))).open_sink(str(where))


def format_of(where: str) -> str:
    """The name of the format of a path or an address."""
    *asked, last = FORMATS
    return next((name for name in asked if _module(name).reads(where)), last)


def _module(name: str) -> Format:
    return cast("Format", importlib.import_module(FORMATS[name]))
