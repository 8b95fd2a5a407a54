"""A sink for any format whose files hold many images each.

During a run, each image is a file of its own in a hidden folder, the spool. When all images exist, they are packed:
every file of the archive appears as a whole and is entered in the index, and only then are its images removed from the
spool. A killed run therefore continues from what is done, and ends with the same files as an undisturbed run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffclean.data.apart import check_all_separate
from diffclean.data.archive import Archive, Entry, Head
from diffclean.data.bucket_path import AnyFile
from diffclean.data.division import divided
from diffclean.data.item import Item, ReadError
from diffclean.data.manifest import Row, Status
from diffclean.data.places import place_of, real, records_at, remove, remove_below, whole_at
from diffclean.data.records import Log, Records
from diffclean.data.registry import FOLDER, open_sink
from diffclean.data.shard import Shard
from diffclean.data.sinks import Sink
from diffclean.data.sources import Description, Source
from diffclean.errors import DiffcleanError, UsageError

SPOOL = ".diffclean-spool"
INDEX = ".diffclean-packed.jsonl"
Made = Callable[[], Iterable[tuple[Item, list[Row]]]]
"""Gives each image with the last attempts at its variations, in the order of keys; can be asked twice."""


@dataclass(frozen=True, slots=True)
class _Packed:
    """The place of an image.

    Attributes:
        file: the file of the archive.
        where: the place in the file, as in `Item.where`.
        size: the size of the image in bytes.
    """

    file: str
    where: str
    size: int


@dataclass(frozen=True, slots=True)
class _File:
    """A file of the archive as it should be.

    Attributes:
        digest: a hash of its content.
        is_stale: whether the file differs and has to be written.
    """

    digest: str
    is_stale: bool


class PackedSink:
    """Writes variations to archives. If the source consists of such files too, the division into files is kept.

    Args:
        archive: the kind of file.
        root: the folder that the files and the records lie in.
        owner: see `folder.FolderSink`.

    Raises:
        UsageError: `root` is a file or looks like one.
    """

    def __init__(self, archive: Archive, root: Path | str, owner: str = "") -> None:
        self.archive, self.root = archive, place_of(root)
        if self.root.is_file() or self.root.suffix == archive.suffix:
            raise UsageError(
                f"{root} is named like a file; a run writes a folder with its files and records.",
                f"Give a folder, such as {self.root.with_suffix('')}, and `to` {archive.name}",
            )
        for folder in {self.root / SPOOL, self.root / archive.folder} - {self.root}:
            if folder.is_symlink():
                raise DiffcleanError(
                    f"{folder} is a link: what is written would lie elsewhere.",
                    "Remove the link, or give another `out`.",
                )
        self.records: Records = records_at(self.root)
        self._owner = owner
        self._spool = self._opened_spool()
        self._loaded: _Index | None = None

    @property
    def where(self) -> str:
        """The folder."""
        return str(self.root)

    def for_shard(self, shard: Shard) -> PackedSink:
        """Return this sink; raises UsageError if several runs would have to write one file."""
        if shard.count > 1:
            raise UsageError(
                f"`shard` writes a folder of images, not {self.archive.title}.",
                f"Give `to` folder; then: diffclean merge OUT; diffclean convert OUT NEW --to {self.archive.name}",
            )
        return self

    def check_apart(self, source: Source) -> None:
        """See `check_all_separate`."""
        check_all_separate(source.places(), Path(str(self.root)))

    def check_keys(self, keys: Iterable[str], variants: int, extension: str, full_names: bool = False) -> None:
        """Check the keys as for a folder, because the spool is one."""
        self._spool.check_keys(keys, variants, extension, full_names)

    def write(self, key: str, data: bytes) -> None:
        """Write one image to the spool."""
        self._spool.write(key, data)

    def sync(self) -> None:
        """Make the names of what was written durable."""
        self._spool.sync()

    def size(self, key: str) -> int | None:
        """Return the size of an image in the spool, or in a file that still has the size that was written."""
        found = self._spool.size(key)
        if found is not None:
            return found
        packed = self._index.images.get(key)
        return packed.size if packed is not None and self._index.is_there(packed.file) else None

    def read(self, key: str) -> bytes:
        """Read an image from the spool or from a file."""
        if self._spool.size(key) is not None:
            return self._spool.read(key)
        packed = self._index.images.get(key)
        if packed is None:
            raise ReadError("is in no file")
        try:
            return self.archive.read(self._path(packed.file), Item(key, packed.where, ""))
        except (LookupError, TypeError, ValueError) as error:
            raise ReadError(f"is not where the index {INDEX} says") from error

    def remove(self, key: str) -> None:
        """Remove an image from the spool; `finish` rewrites a file that contains it."""
        self._spool.remove(key)

    def packed(self) -> dict[str, tuple[str, Item]]:
        """Return the packed images: key -> the file, and the place in it."""
        return {key: (found.file, Item(key, found.where, "")) for key, found in self._index.images.items()}

    def finish(self, made: Made, source: Source, class_to_idx: Mapping[str, int]) -> None:
        """Pack the images; files that are already correct stay.

        Raises:
            WriteError: a file cannot be written.
            DiffcleanError: the other data of an image cannot be read.
        """
        head = Head(class_to_idx, source.fields)
        self._spool = self._opened_spool()  # other processes may have written to it
        files = {name: self._planned(name, rows, head) for name, rows in self._division(made, source)}
        if self._index.files:
            self._rescue(rows for name, rows in self._division(made, source) if files[name].is_stale)
        for name, rows in self._division(made, source):
            if files[name].is_stale:
                self._pack(name, rows, files[name].digest, source, head)
        for name in [name for name in self._index.files if name not in files]:
            self._index.forget(name)
            remove(self._path(name))
        if files:
            self.archive.complete(self.root, list(files), head)
        self._index.close()
        remove_below(self.root / SPOOL)

    def describe(self) -> Description:
        """Describe the sink by its real path and its owner."""
        return Description(self.archive.name, real(self.root), {"owner": self._owner})

    def _opened_spool(self) -> Sink:
        return open_sink(Description(FOLDER, str(self.root / SPOOL), {"owner": self._owner}))

    @property
    def _index(self) -> _Index:
        if self._loaded is None:
            self._loaded = _Index(self.records, self._path)
        return self._loaded

    def _path(self, file: str) -> AnyFile:
        """Return the place of a file; raises ValueError if an index names a file that no run writes."""
        if "/" in file or "\0" in file or not file.endswith(self.archive.suffix):
            raise ValueError(f"{file!a} is not a file of {self.archive.title}")
        return self.root / self.archive.folder / file

    def _division(self, made: Made, source: Source) -> Iterator[tuple[str, list[tuple[Item, Row]]]]:
        """Yield each file with its rows, one after another, so that only one file's rows are in memory."""
        rows = ((item, row) for item, attempts in made() for row in attempts if row.status is Status.OK)
        sized = ((item, row.output_bytes, row) for item, row in rows)
        for name, some in divided(sized, source, self.archive):
            yield name, [(item, row) for item, _, row in some]

    def _planned(self, name: str, rows: list[tuple[Item, Row]], head: Head) -> _File:
        """Determine what a file should hold, and whether it has to be written."""
        digest = hashlib.sha256(f"{dict(head.class_to_idx)} {head.fields}".encode("utf-8", "backslashreplace"))
        for _, row in rows:
            digest.update(json.dumps([row.output, row.output_sha256, row.label]).encode() + b"\n")
        there = self._index.files.get(name)
        same = there is not None and there["digest"] == digest.hexdigest() and self._index.is_there(name)
        # An image in the spool was made again because its copy in the file was found to be damaged.
        return _File(digest.hexdigest(), not same or any(self._spool.size(row.output) is not None for _, row in rows))

    def _rescue(self, stale: Iterable[list[tuple[Item, Row]]]) -> None:
        """Copy images that are packed again from old files into the spool, because the old files will be replaced."""
        for rows in stale:
            for _, row in rows:
                if self._spool.size(row.output) is None:
                    self._spool.write(row.output, self.read(row.output))
        self._spool.sync()

    def _pack(self, name: str, rows: list[tuple[Item, Row]], digest: str, source: Source, head: Head) -> None:
        path = self._path(name)
        with whole_at(path) as file:
            places = self.archive.pack(file, self._entries(rows, source, head), len(rows), head)
        images = [(row.output, where, row.output_bytes) for (_, row), where in zip(rows, places, strict=True)]
        self._index.note(name, path.stat().st_size, digest, images)
        for output, _, _ in images:
            self._spool.remove(output)

    def _entries(self, rows: Iterable[tuple[Item, Row]], source: Source, head: Head) -> Iterator[Entry]:
        for item, row in rows:
            part = source.part_of(item)
            stem, _, extension = row.output.rpartition(".")
            name = f"{item.key[len(part) + 1 :]}_v{row.variant:02d}" if part else stem
            try:
                about = source.about(item)
                data = self._spool.read(row.output)
            except ReadError as error:
                raise DiffcleanError(
                    f"{item.key} cannot be packed: {error.message}.", "Type the same command again: it goes on."
                ) from error
            yield Entry(name, data, extension, row.label, head.class_to_idx.get(row.label), about)


class _Index:
    """The index of the files: lines that are appended, of which the last one for each file counts."""

    def __init__(self, records: Records, path_of: Callable[[str], AnyFile]) -> None:
        self._records, self._path_of = records, path_of
        self.files: dict[str, dict[str, Any]] = {}
        self.images: dict[str, _Packed] = {}
        self._seen: dict[str, bool] = {}
        self._log: Log | None = None
        log = records.log(INDEX, write=False)
        for line in log.lines():
            try:
                self._take(json.loads(line))
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                break  # A kill cut this line off: its file counts as not written and is packed from the spool again.
        log.close()

    def is_there(self, file: str) -> bool:
        """Whether a file is a plain file with the size that was written; checked once per file."""
        if file not in self._seen:
            path = self._path_of(file)
            plain = path.is_file() and not path.is_symlink()
            self._seen[file] = plain and path.stat().st_size == self.files[file]["bytes"]
        return self._seen[file]

    def note(self, file: str, size: int, digest: str, images: list[tuple[str, str, int]]) -> None:
        """Record that a file was written. Its content is not held in memory: open the index again to read it."""
        content = {"file": file, "bytes": size, "digest": digest}
        self._append(content | {"images": images})
        self._take(content | {"images": []})

    def forget(self, file: str) -> None:
        """Record that a file is no longer needed."""
        self._append({"file": file, "gone": True})
        self._take({"file": file, "gone": True})

    def close(self) -> None:
        """Close the log, which is opened again if it is needed."""
        if self._log is not None:
            self._log.close()
        self._log = None

    def _append(self, content: dict[str, Any]) -> None:
        if self._log is None:
            self._log = self._records.log(INDEX)
            if self._is_torn(self._log):
                self._log.append(b"\n")
        self._log.append(json.dumps(content).encode() + b"\n")

    def _is_torn(self, log: Log) -> bool:
        last = b"\n"
        for line in log.lines():
            last = line
        return not last.endswith(b"\n")

    def _take(self, content: dict[str, Any]) -> None:
        name = content["file"]
        self._path_of(name)  # Anyone may have written the index, and a file that it names may be removed.
        old = self.files.pop(name, None)
        for key in old["keys"] if old else ():
            if (found := self.images.get(key)) is not None and found.file == name:
                del self.images[key]
        self._seen.pop(name, None)
        if not content.get("gone"):
            images = content.pop("images")
            kinds = {(type(key), type(where), type(size)) for key, where, size in images}
            if (
                not kinds <= {(str, str, int)}
                or type(content["bytes"]) is not int
                or not isinstance(content["digest"], str)
            ):
                raise TypeError("an entry of other types")
            self.files[name] = content | {"keys": [key for key, _, _ in images]}
            self.images |= {key: _Packed(name, where, size) for key, where, size in images}
