"""The `Archive` Protocol: what a format must implement if its files hold many images each.

`PackedSource` and `PackedSink` use an archive and do everything that such formats share: parts, keys, labels, resuming,
and writing files as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

from diffclean.data.bucket_path import AnyFile
from diffclean.data.item import Item
from diffclean.data.keys import label_text
from diffclean.data.passed_over import PassedOver

if TYPE_CHECKING:
    import pyarrow as pa

ROW_DIGITS = 9
"""Of a row's number in a key: with leading zeros, so that keys sort as rows do."""


_NO_LABEL = "-1"
"""What research and `datasets` write where there is none."""


def row_key(part: str, row: int) -> str:
    """Return the key `<file>#<row>`."""
    return f"{part}#{row:0{ROW_DIGITS}d}"


@dataclass(frozen=True)
class Look:
    """The settings of one listing of files.

    Attributes:
        byte_limit: larger images become items with a problem.
        label_from: the member, column or array that holds the labels. None: the usual one.
        passed_over: counts what is found and not read.
        names: the names of the classes if labels are stored as numbers. Empty: the numbers are the names.
    """

    byte_limit: int
    label_from: str | None
    passed_over: PassedOver
    names: Mapping[int, str]

    def label(self, value: Any) -> str:
        """Return the label for a stored value, as text that can name a folder.

        Args:
            value: the stored value. A text is a label. A whole number, or bytes that spell one, may stand for a name.
                None and -1 mean that there is no label.
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
        name: the name without extension. It is unique in the data set and may contain folders.
        data: the encoded image.
        extension: the extension for its encoding, without the dot.
        label: the class of the image. `""`: it has none.
        number: the number of the class. None: it has none.
        about: the other data of the image, by field.
    """

    name: str
    data: bytes
    extension: str
    label: str
    number: int | None
    about: Mapping[str, Any]


@dataclass(frozen=True)
class Head:
    """The information that all files of a written archive share.

    Attributes:
        class_to_idx: the numbers of the classes of the data set.
        fields: the names and types of the other data of the images.
    """

    class_to_idx: Mapping[str, int]
    fields: pa.Schema


class Archive(Protocol):
    """One kind of file.

    Attributes:
        name: the name in `registry.FORMATS`.
        title: the name in messages.
        suffix: the suffix of the files, with its dot.
        ending: the character between a part and the rest of a key: `/` or `#`.
        folder: the sub-folder of an output folder that holds the files. `""`: they lie at its top.
        single: whether a data set is one file, however many images it has.
    """

    name: str
    title: str
    suffix: str
    ending: str
    folder: str
    single: bool

    def entries(self, part: str, path: AnyFile, look: Look) -> Iterator[Item]:
        """Yield the images of one file, sorted by the raw bytes of their keys.

        Raises:
            DiffcleanError: the file cannot be read at all.
        """

    def read(self, path: AnyFile, item: Item) -> bytes:
        """Return the encoded bytes of one image; raises ReadError."""

    def about(self, path: AnyFile, item: Item) -> Mapping[str, Any]:
        """Return the other data of an image; raises ReadError."""

    def fields(self, paths: list[AnyFile]) -> pa.Schema:
        """Return names and types of the other data, after the listing. Metadata is kept if formats support it."""

    def class_names(self, paths: list[AnyFile]) -> dict[str, int]:
        """Return the number of each class if the data set itself states it; otherwise empty."""

    def pack(self, file: BinaryIO, entries: Iterator[Entry], count: int, head: Head) -> list[str]:
        """Write one file and return `Item.where` of each entry. The same entries give the same bytes.

        Args:
            file: the file to write to.
            entries: the entries, which are taken one after another.
            count: the number of entries. Only an archive that is `single` may rely on it.
            head: the information that all files share.
        """

    def complete(self, folder: AnyFile, names: list[str], head: Head) -> None:
        """Write what else belongs to a data set of these files."""
