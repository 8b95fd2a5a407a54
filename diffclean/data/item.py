"""One image of a data set, and why one image can fail without stopping the run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from diffclean.errors import DiffcleanError


class ItemError(DiffcleanError):
    """This one image cannot be used; it is listed with this reason and the run goes on."""


class ReadError(ItemError):
    """The bytes of an image cannot be had."""


@dataclass(frozen=True, slots=True)
class Item:
    """An image of a source.

    Attributes:
        key: its identity (see `keys`).
        path: the file that is read; for a symbolic link, the file it leads to.
        label: the first folder of the key, or `""`.
        problem: why it is not read at all; None: nothing is known against it.
    """

    key: str
    path: Path
    label: str
    problem: str | None = None
