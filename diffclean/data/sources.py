"""The `Source` protocol: a place where images are read from. `registry.open_source` opens one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from diffclean.data.item import Item
from diffclean.data.passed_over import PassedOver

if TYPE_CHECKING:
    import pyarrow as pa

BYTE_LIMIT = 512 * 2**20
"""The largest file that is read, in bytes, unless a source is given another limit. An uncompressed image with the
largest number of pixels that is decoded, at four bytes per pixel, fits."""


@dataclass(frozen=True)
class Description:
    """What another process or machine needs to open the same source or sink: `open_source(description)`.

    Attributes:
        format: a name in `registry.FORMATS`.
        where: a path without links, or an address.
        options: the options of the format, as JSON values.
    """

    format: str
    where: str
    options: Mapping[str, Any] = field(default_factory=dict)


class Source(Protocol):
    """A data set that can be listed and read, in any order and from several threads.

    Each call of `stream` lists it again, so that no list of all images must be held in memory; `items` holds such a
    list.
    """

    @property
    def where(self) -> str:
        """The name of the source in messages, as the user wrote it."""

    def parts(self) -> Sequence[str]:
        """The names of its parts (for example the tar files of a set). A source without parts is one part, `""`.

        The images of the parts, one part after another, are sorted by the raw bytes of their keys.
        """

    def stream(self, part: str = "") -> Iterator[Item]:
        """Every image of one part, or of all parts with `""`, sorted.

        Images that are known to be unreadable (`problem`) are included.

        Raises:
            DiffcleanError: the source cannot be listed, or (for all parts) holds no image.
        """

    def items(self) -> list[Item]:
        """All of `stream()`, listed once and held in memory, for callers that need the images in another order."""

    def read(self, item: Item) -> bytes:
        """The encoded bytes of one image; raises `ReadError` if they cannot be read."""

    @property
    def class_to_idx(self) -> dict[str, int]:
        """The number of each label; empty for a data set without labels.

        A class without an image that is read has one too.

        Needs no listing after `stream` has reached its end.

        Raises:
            DiffcleanError: it is not clear where the labels are.
        """

    def name(self, item: Item) -> str:
        """What an image is called where images lie in folders of classes: a key that no other image has."""

    def part_of(self, item: Item) -> str:
        """The part that an image lies in; `""`: the source has none."""

    def about(self, item: Item) -> Mapping[str, Any]:
        """What travels along with an image beside its label: other columns, other members. Raises `ReadError`."""

    @property
    def fields(self) -> pa.Schema:
        """Names and types of what travels along; costs no listing after `stream` has come to its end."""

    def places(self) -> Sequence[Path]:
        """The files and folders that it consists of: no output may lie in them, nor they in it."""

    @property
    def passed_over(self) -> PassedOver:
        """What the source contains that is not read; needs no listing after `stream` has reached its end."""

    def describe(self) -> Description | None:
        """What another process needs to open the source, or None if the source exists in this process only."""
