"""What a format of files that hold many images each has to say: the `Archive` Protocol.

`PackedSource` and `PackedSink` do with an archive all that such formats share: parts, keys, labels, resuming, and that
files appear whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

from diffclean.data.item import Item
from diffclean.data.passed_over import PassedOver

if TYPE_CHECKING:
    import pyarrow as pa

ROW_DIGITS = 9
"""Of a row's number in a key: with leading zeros, so that keys sort as rows do."""


_NO_LABEL = "-1"
"""What research and `datasets` write where there is none."""


def row_key(part: str, row: int) -> str:
    """`<file>#<row>`."""
    return f"{part}#{row:0{ROW_DIGITS}d}"


@dataclass(frozen=True)
class Look:
    """How one listing looks at files.

    Attributes:
        byte_limit: larger images become items with a problem.
        label_from: which member, column or array the labels are in; None: the usual one.
        passed_over: is told what is there and not taken.
        names: of the classes, where labels are stored as numbers; empty: the numbers are the names.
    """

    byte_limit: int
    label_from: str | None
    passed_over: PassedOver
    names: Mapping[int, str]

    def label(self, value: Any) -> str:
        """The label that a stored value means, as text that can name a folder.

        Args:
            value: a text is a label; a whole number, or bytes that say one, may stand for a name. None, -1: no label.
        """
        text = value.decode("utf-8", "replace").strip() if isinstance(value, bytes) else str(value)
        if value is None or (not isinstance(value, str) and text == _NO_LABEL):
            return ""
        is_number = not isinstance(value, str) and text.isascii() and text.isdigit() and len(text) < 10
        return label_text(self.names.get(int(text), text) if is_number else text)


@dataclass(frozen=True)
class Entry:
    """An image on its way into an archive.

    Attributes:
        name: without extension; unique in the data set, perhaps with folders.
        data: an encoded image.
        extension: that says how it is encoded, without the dot.
        label: its class; `""`: none.
        number: of the class; None: none.
        about: what travels along, by field.
    """

    name: str
    data: bytes
    extension: str
    label: str
    number: int | None
    about: Mapping[str, Any]


@dataclass(frozen=True)
class Head:
    """What all files of an archive that is written have in common.

    Attributes:
        class_to_idx: of the data set.
        fields: names and types of what travels along.
    """

    class_to_idx: Mapping[str, int]
    fields: pa.Schema


class Archive(Protocol):
    """One kind of file.

    Attributes:
        name: in `registry.FORMATS`.
        title: in messages.
        suffix: of the files, with its dot.
        ending: what stands between a part and the rest of a key: `/` or `#`.
        folder: where in an output folder the files lie; `""`: at its top.
        single: whether a data set is one file, however many images it has.
    """

    name: str
    title: str
    suffix: str
    ending: str
    folder: str
    single: bool

    def entries(self, part: str, path: Path, look: Look) -> Iterator[Item]:
        """The images of one file, sorted by the raw bytes of their keys.

        Raises:
            DiffcleanError: the file cannot be read at all.
        """

    def read(self, path: Path, item: Item) -> bytes:
        """The encoded bytes of one image; raises ReadError."""

    def about(self, path: Path, item: Item) -> Mapping[str, Any]:
        """What travels along with it; raises ReadError."""

    def fields(self, paths: list[Path]) -> pa.Schema:
        """Names and types of what travels along; asked after the listing. Metadata are kept where formats know them."""

    def class_names(self, paths: list[Path]) -> dict[str, int]:
        """Which number a class has, where the data set itself says so; else empty."""

    def pack(self, file: BinaryIO, entries: Iterator[Entry], count: int, head: Head) -> list[str]:
        """Write one file; returns `Item.where` of each entry. The same entries give the same bytes.

        Args:
            file: is written to.
            entries: are taken one after another.
            count: how many they are; only an archive that is `single` may rely on it.
            head: of all files.
        """

    def complete(self, folder: Path, names: list[str], head: Head) -> None:
        """Write what else belongs to a data set of these files."""


def label_text(text: str) -> str:
    """A label from outside as text that can name a folder: it must lead nowhere else, nor be hidden."""
    from diffclean.data.keys import safe_text

    clean = safe_text(text.strip()).replace("/", "_")[:200]
    return f"_{clean}" if clean.startswith(".") else clean
