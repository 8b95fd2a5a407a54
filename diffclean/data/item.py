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
        where: how its own source finds it again; means nothing to anyone else. Of a folder the file's path, and for a
            symbolic link the path of the file that it leads to.
        label: the first folder of the key, or `""`.
        problem: why it is not read at all; None: nothing is known against it.
        stamp: what changes when the image is replaced, and costs no reading: for a file its size and the time of its
            last change. `""`: there is no such thing, so only the bytes can tell.
    """

    key: str
    where: str
    label: str
    problem: str | None = None
    stamp: str = ""

    @property
    def path(self) -> Path:
        """The file, where the source is a folder."""
        return Path(self.where)
