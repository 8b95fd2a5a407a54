"""One image of a data set, and the errors that concern one image without stopping the run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from diffclean.errors import DiffcleanError


class ItemError(DiffcleanError):
    """This image cannot be used. It is listed with this reason, and the run goes on."""


class ReadError(ItemError):
    """The bytes of an image cannot be read."""


@dataclass(frozen=True, slots=True)
class Item:
    """An image of a source.

    Attributes:
        key: its identity (see `keys`).
        where: how its source finds it again; the value has a meaning for this source only. For a folder it is the path
            of the file, and for a symbolic link the path of the file that the link leads to.
        label: the first folder of the key, or `""`.
        problem: the reason why the image cannot be read, or None if no reason is known.
        stamp: a value that changes when the image is replaced and can be found without reading the image: for a file,
            its size and the time of its last change. `""` if there is no such value, so that only the bytes can show a
            change.
    """

    key: str
    where: str
    label: str
    problem: str | None = None
    stamp: str = ""

    @property
    def path(self) -> Path:
        """The path of the file, if the source is a folder."""
        return Path(self.where)
