"""The WebDataset format: tars in which the members of one image are adjacent and have equal names up to the first dot.

`0001.jpg`, `0001.cls` and `0001.json` are one sample with the key `0001`. The `.cls` member holds the label, a number
or a name. If labels are numbers, `classes.json` beside the tars may give their names.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO

from diffclean.data.archive import Entry, Head, Look
from diffclean.data.bucket_path import AnyFile
from diffclean.data.classes import checked_classes
from diffclean.data.formats import is_taken
from diffclean.data.item import Item, ReadError
from diffclean.data.json_file import json_of, read_json
from diffclean.data.keys import BadKeyError, key_bytes, key_from_path, label_text, safe_text
from diffclean.data.packed_sink import PackedSink
from diffclean.data.packed_source import PackedSource
from diffclean.data.places import write_at
from diffclean.data.shard_files import is_of, opened, read_range, stamp_of
from diffclean.data.tar import Member, NoEndMark, TarError, members
from diffclean.data.tar_members import add_member, are_numbers, label_member, member_name, members_beside
from diffclean.errors import DiffcleanError, UsageError

if TYPE_CHECKING:
    import pyarrow as pa

CLASSES_FILE = "classes.json"
_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
_TEXTS = frozenset({"json", "txt", "text", "caption", "csv", "yaml", "yml", "xml"})
_LABEL_BYTES, _JSON_BYTES, _ALONG_BYTES = 1024, 16 * 2**20, 64 * 2**20
_SORT = "write it anew with its names sorted: tar --sort=name"


def reads(where: str) -> bool:
    """Whether this is a tar, a pattern of tars, or a folder of tars."""
    return is_of(where, ".tar") or where.endswith(_COMPRESSED)


def open_source(where: str, **options: Any) -> PackedSource:
    """See `PackedSource`. `label_from` is `cls` or `json:FIELD`."""
    if where.endswith(_COMPRESSED):
        raise DiffcleanError(
            f"{where} is compressed, so no image in it can be reached without reading all before it.",
            f"Unpack the tar itself (images are compressed already): gunzip {where}",
        )
    return PackedSource(Tars(), where, **options)


def open_sink(where: str, **options: Any) -> PackedSink:
    """See `PackedSink`."""
    return PackedSink(Tars(), where, **options)


@dataclass
class _Sample:
    """The members of one key.

    Attributes:
        parts: extension -> member.
        problem: why the sample is not read.
    """

    parts: dict[str, Member] = field(default_factory=dict)
    problem: str | None = None

    @property
    def images(self) -> list[str]:
        return [extension for extension in self.parts if is_taken(extension.rpartition(".")[2])]


class Tars:
    """The `Archive` for tars; see the module."""

    name, title, suffix, ending, folder = "webdataset", "WebDataset tars (*.tar)", ".tar", "/", ""
    single = False

    def __init__(self) -> None:
        self._extensions: set[str] = set()

    def entries(self, part: str, path: AnyFile, look: Look) -> Iterator[Item]:
        """Yield one item per sample; for a damaged tar, the samples before the damage and an item that reports it."""
        if look.label_from not in (None, "cls") and not str(look.label_from).startswith("json:"):
            raise UsageError(
                f"In WebDataset tars no label is called {look.label_from!r}.", "Give `label_from` cls, or json:FIELD."
            )
        try:
            file = opened(path)
        except OSError as error:
            raise DiffcleanError(f"{path} cannot be read ({error.strerror}).") from error
        with file:
            stamp = stamp_of(file)
            samples, damage = _samples(file, path, look)
            found = [self._item(f"{part}/{key}", sample, file, stamp, look) for key, sample in samples.items()]
        items = [item for item in found if item is not None]
        if damage:
            name = "(the rest of this tar)"
            while name in samples:
                name += "'"
            items.append(Item(f"{part}/{name}", "", "", damage))
        yield from sorted(items, key=lambda item: key_bytes(item.key))

    def read(self, path: AnyFile, item: Item) -> bytes:
        """Read the member that holds the image."""
        content = _where(item)
        return read_range(path, content["stamp"], *content["image"])

    def about(self, path: AnyFile, item: Item) -> Mapping[str, bytes]:
        """Return the other members unchanged."""
        content = _where(item)
        if sum(size for _, size in content["along"].values()) > _ALONG_BYTES:
            raise ReadError(f"what lies beside it has more than {_ALONG_BYTES:,} bytes")
        return {name: read_range(path, content["stamp"], *place) for name, place in content["along"].items()}

    def fields(self, paths: list[AnyFile]) -> pa.Schema:
        """Return the types of the other members: strings for texts, bytes for everything else."""
        import pyarrow as pa

        texts = {name: pa.string() if name.rpartition(".")[2] in _TEXTS else pa.binary() for name in self._extensions}
        return pa.schema(sorted(texts.items()))

    def class_names(self, paths: list[AnyFile]) -> dict[str, int]:
        """Return the class names in `classes.json` beside the tars."""
        path = paths[0].parent / CLASSES_FILE
        if not path.is_file():
            return {}
        try:
            stored = checked_classes(read_json(path))
            return checked_classes({label_text(name): number for name, number in stored.items()})
        except DiffcleanError as error:
            raise DiffcleanError(f"{path}: {error.message}", 'Expected {"cat": 0, "dog": 1}.') from error

    def pack(self, file: BinaryIO, entries: Iterator[Entry], count: int, head: Head) -> list[str]:
        """Write the members of each image, without owners and dates."""
        found, as_they_are = [], are_numbers(head)
        with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for entry in entries:
                base = member_name(entry.name)
                place = add_member(tar, f"{base}.{entry.extension}", entry.data)
                if entry.label:
                    add_member(tar, f"{base}.cls", str(label_member(entry, as_they_are)).encode())
                for name, data in members_beside(entry.about).items():
                    add_member(tar, f"{base}.{name}", data)
                found.append(json.dumps({"stamp": "", "image": place, "along": {}}))
                tar.getmembers().clear()  # The tar would keep all of them in memory.
        return found

    def complete(self, folder: AnyFile, names: list[str], head: Head) -> None:
        """Write the names of the classes, unless they are numbers."""
        if head.class_to_idx and not are_numbers(head):
            write_at(folder / CLASSES_FILE, json.dumps(dict(head.class_to_idx), indent=2).encode() + b"\n")

    def _item(self, key: str, sample: _Sample, file: BinaryIO, stamp: str, look: Look) -> Item | None:
        """Return the item of a sample, or None if the sample has no image."""
        images = sample.images
        if not images:
            for extension in sample.parts:
                look.passed_over.add("", extension.rpartition(".")[2])
            return None
        problem, label = sample.problem, ""
        if len(images) > 1:
            problem = problem or f"it has {len(images)} images ({', '.join(sorted(images)[:5])}); expected one"
        image = sample.parts[images[0]]
        if image.size > look.byte_limit:
            problem = problem or f"image of {image.size} bytes; the limit is {look.byte_limit}"
        try:
            label = look.label(_label(sample, file, look.label_from))
        except ValueError as error:
            problem = problem or str(error)
        along = {name: member for name, member in sample.parts.items() if name not in (images[0], "cls")}
        self._extensions |= along.keys()
        where = {
            "stamp": stamp,
            "image": (image.offset, image.size),
            "along": {name: (member.offset, member.size) for name, member in along.items()},
        }
        return Item(key, json.dumps(where), label, problem, f"{stamp}:{image.offset}")


def _samples(file: BinaryIO, path: AnyFile, look: Look) -> tuple[dict[str, _Sample], str]:
    """Return key -> sample, and what is wrong with the rest of the tar."""
    samples: dict[str, _Sample] = {}
    last = damage = ""
    length = path.stat().st_size
    if file.read(2) == b"\x1f\x8b":
        raise DiffcleanError(
            f"{path} is compressed with gzip.", f"Unpack the tar itself: mv {path} {path}.gz; gunzip {path}.gz"
        )
    try:
        for number, member in enumerate(members(file, length)):
            if member.kind != "folder":
                last = _note(samples, member, number, last, look)
    except NoEndMark:
        look.passed_over.problems.append("The tar ends without an end mark: it may have been cut off between members.")
    except TarError as error:
        damage = f"the tar cannot be read to its end: {error}; what comes after that is missing here"
    return samples, damage


def _note(samples: dict[str, _Sample], member: Member, number: int, last: str, look: Look) -> str:
    """Add one member to its sample, and return the key of the sample."""
    name = member.name
    while name.startswith(b"./"):
        name = name[2:]
    base = name.rpartition(b"/")[2]
    if base.startswith(b"."):
        look.passed_over.hidden += 1
        return last
    stem, _, extension = base.partition(b".")
    kind = safe_text(extension.decode("utf-8", "replace").lower())
    is_image = is_taken(kind.rpartition(".")[2])
    try:
        key = key_from_path(name[: len(name) - len(base)] + stem)
    except BadKeyError:
        shown = safe_text(name[:100].decode("utf-8", "replace"))
        key, problem = f"member {number}", f"its name {shown!r} leads out of the tar; such a member is not taken"
    else:
        problem = "" if member.kind == "file" else f"{kind or 'a member'} is a {member.kind}, not a plain file"
        if key in samples and last != key:
            problem = problem or f"its members lie apart in the tar, so others read it as two samples; {_SORT}"
    if not kind or (problem and not is_image and key not in samples):
        look.passed_over.add("", kind.rpartition(".")[2])
        return last
    sample = samples.setdefault(key, _Sample())
    if kind in sample.parts:
        problem = f"its member {kind} is there twice; {_SORT}"
    sample.problem = sample.problem or problem or None
    sample.parts.setdefault(kind, member)
    return key


def _label(sample: _Sample, file: BinaryIO, label_from: str | None) -> Any:
    """Return the stored label of a sample; raises ValueError if it cannot be read."""
    if label_from is None or label_from == "cls":
        found = sample.parts.get("cls")
        return None if found is None else _bytes(file, found, _LABEL_BYTES, "cls")
    if "json" not in sample.parts:
        return None
    content = json_of(_bytes(file, sample.parts["json"], _JSON_BYTES, "json"))
    value = content.get(label_from.removeprefix("json:")) if isinstance(content, dict) else None
    if value is not None and not isinstance(value, str | int):
        raise ValueError(f"its label in the json member is {str(value)[:40]!r}; expected a text or a whole number")
    return value


def _bytes(file: BinaryIO, member: Member, most: int, what: str) -> bytes:
    if member.size > most or member.kind != "file":
        raise ValueError(f"its {what} member is a {member.kind} of {member.size} bytes; at most {most} are read")
    file.seek(member.offset)
    return file.read(member.size)


def _where(item: Item) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(item.where)
    return content


ARCHIVE = Tars
