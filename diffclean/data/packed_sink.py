"""A sink for any format whose files hold many images each.

Each image is first written as a file of its own to a hidden folder, the spool. As soon as all images of a file of the
archive exist, they are packed: the file appears as a whole and is entered in the index, and only then are its images
removed from the spool. The spool therefore holds the images of a few files at a time. A killed run continues from what
is done, and ends with the same files as an undisturbed run.

Shards of a run write files of their own, with spools and indexes of their own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing, suppress
from pathlib import Path

from diffclean.data.apart import check_all_separate
from diffclean.data.archive import Archive, Entry, Head
from diffclean.data.bucket_path import AnyFile, BucketPath
from diffclean.data.division import divided
from diffclean.data.in_order import in_order
from diffclean.data.item import Item, ReadError
from diffclean.data.manifest import Row, Status
from diffclean.data.packed_index import PackedIndex
from diffclean.data.places import place_of, real, records_at, remove, remove_below, whole_at
from diffclean.data.records import Records
from diffclean.data.registry import FOLDER, open_sink
from diffclean.data.shard import Shard
from diffclean.data.sinks import Sink
from diffclean.data.sources import Description, Source
from diffclean.errors import DiffcleanError, UsageError

SPOOL = ".diffclean-spool"
INDEX = ".diffclean-packed"
_READERS = 16
Made = Callable[[], Iterable[tuple[Item, list[Row]]]]
"""Gives each image with the last attempts at its variations, in the order of keys; can be asked twice."""


class PackedSink:
    """Writes variations to archives. If the source consists of such files too, the division into files is kept.

    Args:
        archive: the kind of file.
        root: the folder that the files and the records lie in.
        owner: the name of the shard that writes.

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
        self._owner, self._mark = owner, f"-{owner}" if owner else ""
        self._pieces = self.root / f"{SPOOL}{self._mark}"
        for folder in {self._pieces, self.root / archive.folder} - {self.root}:
            if folder.is_symlink():
                raise DiffcleanError(
                    f"{folder} is a link: what is written would lie elsewhere.",
                    "Remove the link, or give another `out`.",
                )
        self.records: Records = records_at(self.root)
        self._spool = self._opened_spool()
        self._loaded: PackedIndex | None = None

    @property
    def where(self) -> str:
        """The folder."""
        return str(self.root)

    def for_shard(self, shard: Shard) -> PackedSink:
        """The same folder for one shard, whose files have the name of the shard in theirs."""
        return self if shard.name == self._owner else PackedSink(self.archive, str(self.root), shard.name)

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
        packed = self.index.images.get(key)
        return packed.size if packed is not None and self.index.is_there(packed.file) else None

    def read(self, key: str) -> bytes:
        """Read an image from the spool or from a file."""
        if self._spool.size(key) is not None:
            return self._spool.read(key)
        packed = self.index.images.get(key)
        if packed is None:
            raise ReadError("is in no file")
        try:
            return self.archive.read(self.path_of(packed.file), Item(key, packed.where, ""))
        except (LookupError, TypeError, ValueError) as error:
            raise ReadError(f"is not where the index {self.index_name} says") from error

    def remove(self, *keys: str) -> None:
        """Remove images from the spool and from the index; `finish` rewrites a file that contains them."""
        self._spool.remove(*keys)
        self.index.drop([key for key in keys if key in self.index.images])

    def packed(self) -> dict[str, tuple[str, Item]]:
        """Return the packed images: key -> the file, and the place in it."""
        return {key: (found.file, Item(key, found.where, "")) for key, found in self.index.images.items()}

    def follow(self, made: Iterable[tuple[Item, list[Row]]], source: Source, class_to_idx: Mapping[str, int]) -> None:
        """Pack each file as soon as its images are there; raises like `finish`."""
        head = Head(class_to_idx, source.fields)
        for name, rows in self._division(made, source):
            self._bring(name, rows, source, head)

    def finish(self, made: Made, source: Source, class_to_idx: Mapping[str, int]) -> None:
        """Pack what is not packed yet; files that are already correct stay.

        Raises:
            WriteError: a file cannot be written.
            DiffcleanError: the other data of an image cannot be read.
        """
        head = Head(class_to_idx, source.fields)
        self._spool = self._opened_spool()  # other processes may have written to it
        right = {name: self._is_right(name, rows, head, self._spool) for name, rows in self._division(made(), source)}
        if not all(right.values()):
            self._close_index()  # it is read again: `follow` has packed files whose images are not held in memory
            for name, rows in self._division(made(), source):
                self._bring(name, rows, source, head)
        for name in [name for name in self.index.files if name not in right]:
            self.index.forget(name)
            remove(self.path_of(name))
        if right and not self._owner:  # what belongs to the whole data set is written when its shards are merged
            self.archive.complete(self.root, list(right), head)
        self._close_index()
        remove_below(self._pieces)

    def describe(self) -> Description:
        """Describe the sink by its real path and its owner."""
        return Description(self.archive.name, real(self.root), {"owner": self._owner})

    def _opened_spool(self) -> Sink:
        return open_sink(Description(FOLDER, str(self._pieces), {"owner": self._owner}))

    @property
    def index(self) -> PackedIndex:
        """Which file holds an image, and where; read when it is first needed."""
        if self._loaded is None:
            self._loaded = PackedIndex(self.records, self.index_name, self.path_of)
        return self._loaded

    @property
    def index_name(self) -> str:
        """The name of the index among the records."""
        return f"{INDEX}{self._mark}.jsonl"

    def _close_index(self) -> None:
        if self._loaded is not None:
            self._loaded.close()
        self._loaded = None

    def path_of(self, file: str) -> AnyFile:
        """Return the place of a file; raises ValueError if an index names a file that no run writes."""
        if "/" in file or "\0" in file or not file.endswith(self.archive.suffix):
            raise ValueError(f"{file!a} is not a file of {self.archive.title}")
        return self.root / self.archive.folder / file

    def _division(
        self, made: Iterable[tuple[Item, list[Row]]], source: Source
    ) -> Iterator[tuple[str, list[tuple[Item, Row]]]]:
        """Yield each file with its rows, one after another, so that only one file's rows are in memory."""
        rows = ((item, row) for item, attempts in made for row in attempts if row.status is Status.OK)
        sized = ((item, row.output_bytes, row) for item, row in rows)
        for name, some in divided(sized, source, self.archive):
            suffix = self.archive.suffix
            yield f"{name.removesuffix(suffix)}{self._mark}{suffix}", [(item, row) for item, _, row in some]

    def _bring(self, name: str, rows: list[tuple[Item, Row]], source: Source, head: Head) -> None:
        """Pack one file, unless it is as it should be."""
        pieces = self._opened_spool()  # as the stations have filled it until now, in whatever processes they are
        if self._is_right(name, rows, head, pieces):
            return
        if self.index.files:
            self._rescue(name, rows, pieces)
        path = self.path_of(name)
        with whole_at(path) as file, closing(self._entries(rows, source, head, pieces)) as entries:
            places = self.archive.pack(file, entries, len(rows), head)
        images = [(row.output, where, row.output_bytes) for (_, row), where in zip(rows, places, strict=True)]
        self.index.note(name, path.stat().st_size, _digest(rows, head), images)
        pieces.remove(*(output for output, _, _ in images))

    def _is_right(self, name: str, rows: list[tuple[Item, Row]], head: Head, pieces: Sink) -> bool:
        """Whether a file holds what it should."""
        there = self.index.files.get(name)
        same = there is not None and there["digest"] == _digest(rows, head) and self.index.is_there(name)
        # An image in the spool was made again because its copy in the file was found to be damaged.
        return same and all(pieces.size(row.output) is None for _, row in rows)

    def _rescue(self, name: str, rows: list[tuple[Item, Row]], pieces: Sink) -> None:
        """Copy to the spool what lies in files of an earlier run and is packed again, or would go with the old file."""
        wanted = {row.output for _, row in rows}
        for output in wanted:
            if pieces.size(output) is None:
                pieces.write(output, self.read(output))
        for output in list(self.index.images_in(name)):
            if output not in wanted and pieces.size(output) is None:
                with suppress(ReadError):  # it is damaged, and is made again
                    pieces.write(output, self.read(output))
        pieces.sync()

    def _entries(
        self, rows: Iterable[tuple[Item, Row]], source: Source, head: Head, pieces: Sink
    ) -> Generator[Entry, None, None]:
        """What is packed. In a bucket, each piece is a request, so several are read at a time."""

        def entry(each: tuple[Item, Row]) -> Entry:
            item, row = each
            part = source.part_of(item)
            stem, _, extension = row.output.rpartition(".")
            name = f"{item.key[len(part) + 1 :]}_v{row.variant:02d}" if part else stem
            try:
                about = source.about(item)
                data = pieces.read(row.output)
            except ReadError as error:
                raise DiffcleanError(
                    f"{item.key} cannot be packed: {error.message}.", "Type the same command again: it goes on."
                ) from error
            return Entry(name, data, extension, row.label, head.class_to_idx.get(row.label), about)

        yield from in_order(entry, rows, _READERS if isinstance(self.root, BucketPath) else 1)


def _digest(rows: Iterable[tuple[Item, Row]], head: Head) -> str:
    """A hash of what a file should hold."""
    digest = hashlib.sha256(f"{dict(head.class_to_idx)} {head.fields}".encode("utf-8", "backslashreplace"))
    for _, row in rows:
        digest.update(json.dumps([row.output, row.output_sha256, row.label]).encode() + b"\n")
    return digest.hexdigest()
