"""Where images come from: the `Source` Protocol. `registry.open_source` opens one."""

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
"""The largest file that is read, unless a source is told otherwise. Holds an uncompressed picture of as many pixels as
are decoded, in four bytes each."""


@dataclass(frozen=True)
class Description:
    """What another process, or another machine, is told to open the same source or sink: `open_source(description)`.

    Attributes:
        format: a name in `registry.FORMATS`.
        where: a path without a link in it, or an address.
        options: of the format, as JSON can say them.
    """

    format: str
    where: str
    options: Mapping[str, Any] = field(default_factory=dict)


class Source(Protocol):
    """A data set that can be listed and read, in any order and from several threads.

    It is listed anew by each call of `stream`, so that nothing has to hold a list of all images; `items` holds one.
    """

    @property
    def where(self) -> str:
        """What messages call it: as the user wrote it."""

    def parts(self) -> Sequence[str]:
        """The names of its parts (the tars of a set, say); a source that has none is one part, `""`.

        What the parts hold, one part after another, is sorted by the raw bytes of the keys.
        """

    def stream(self, part: str = "") -> Iterator[Item]:
        """Every image of one part, or of all with `""`, sorted; also those known to be unreadable (`problem`).

        Raises:
            DiffcleanError: it cannot be listed, or (for all) holds no image.
        """

    def items(self) -> list[Item]:
        """All of `stream()`, listed once and held: for those who need their images in another order."""

    def read(self, item: Item) -> bytes:
        """The encoded bytes of one image; raises `ReadError` when they cannot be had."""

    @property
    def class_to_idx(self) -> dict[str, int]:
        """Which number a label has; empty for a data set without labels. A class of which nothing is taken has one too.

        Costs no listing after `stream` has come to its end.

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
        """What is there and was not taken; costs no listing after `stream` has come to its end."""

    def describe(self) -> Description | None:
        """How another process opens it; None: it lives in this process alone."""
