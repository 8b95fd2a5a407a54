"""The format of Parquet files with a column of images. All other columns are copied to the output.

A row group may be larger than memory. It is read some rows at a time, and its images are kept in a temporary file, from
which several threads can read them in any order.
"""

from __future__ import annotations

import tempfile
from array import array
from bisect import bisect_right
from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import accumulate
from os import pread
from threading import Lock
from typing import TYPE_CHECKING, Any, BinaryIO

from diffclean.data.archive import Entry, Head, Look, row_key
from diffclean.data.bucket_path import AnyFile
from diffclean.data.columns import Columns, columns_of, image_bytes, written_batches, written_schema
from diffclean.data.item import Item, ReadError
from diffclean.data.packed_sink import PackedSink
from diffclean.data.packed_source import PackedSource
from diffclean.data.places import place_of
from diffclean.data.shard_files import check_one_split, check_unchanged, holds, is_of, opened, stamp_at, stamp_of
from diffclean.data.spool import temporary
from diffclean.errors import DiffcleanError

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

_SUFFIX, _FOLDER = ".parquet", "data"
_IMAGES_AT_ONCE, _ROWS_AT_ONCE = 16, 1024
_BUFFER_BYTES = 2**20  # Without it, a whole row group of a column is read at once.
_KEPT_BYTES = 4 * 2**30
"""Of temporary files with the images of row groups."""
_FEW_ROWS, _SMALLEST_BYTES = 1000, 8
_SMALL_GROUP, _MOST_PACKED = 2**30, 64
"""A row group above the first that unpacks to more than so many times the file is a bomb."""


def reads(where: str) -> bool:
    """Whether this is a Parquet file, a pattern of them, or a folder of them, perhaps in its sub-folder `data`."""
    return is_of(where, _SUFFIX) or holds(place_of(where), _SUFFIX, _FOLDER)


def open_source(where: str, **options: Any) -> PackedSource:
    """See `PackedSource`. `label_from` is a column."""
    source = PackedSource(Parquet(options.get("label_from")), where, **options)
    check_one_split(where, source.parts())
    return source


def open_sink(where: str, **options: Any) -> PackedSink:
    """See `PackedSink`. The files lie in the sub-folder `data`, apart from `manifest.parquet`."""
    return PackedSink(Parquet(), where, **options)


@dataclass
class _Group:
    """The images of a row group, one after another in a temporary file without a name.

    Attributes:
        file: the temporary file. It is removed when it is no longer used.
        ends: the end of the image of each row. Each image begins at the end of the previous one.
        problems: row -> why it has no image.
    """

    file: Any = field(default_factory=tempfile.TemporaryFile)
    ends: array[int] = field(default_factory=lambda: array("q", [0]))
    problems: dict[int, str] = field(default_factory=dict)

    def add(self, value: Any) -> None:
        try:
            data = image_bytes(value)
        except ReadError as error:
            self.problems[len(self.ends) - 1] = error.message
            data = b""
        self.file.write(data)
        self.ends.append(self.ends[-1] + len(data))

    def read(self, row: int) -> bytes:
        if row in self.problems:
            raise ReadError(self.problems[row])
        return pread(self.file.fileno(), self.ends[row + 1] - self.ends[row], self.ends[row])


class Parquet:
    """The `Archive` for Parquet files; see the module.

    Args:
        label_from: the column of labels. None: the column that looks like it.
    """

    name, title, suffix, ending, folder = "parquet", "Parquet files (*.parquet)", _SUFFIX, "#", _FOLDER
    single = False

    def __init__(self, label_from: str | None = None) -> None:
        self._label_from = label_from
        self._groups: OrderedDict[tuple[AnyFile, str, int], _Group] = OrderedDict()
        self._along: tuple[Any, deque[tuple[int, list[dict[str, Any]]]]] = (None, deque())
        self._rows: Iterator[tuple[int, list[dict[str, Any]]]] = iter(())
        self._starts: dict[AnyFile, tuple[str, list[int]]] = {}
        self._using = Lock()
        self._first: tuple[AnyFile, pa.Schema] | None = None

    def entries(self, part: str, path: AnyFile, look: Look) -> Iterator[Item]:
        """Yield one item per row; only the labels are read."""
        with _file(path) as (stamp, file):
            found = self._columns(path, file)
            _check_rows(path, file.metadata.num_rows)
            row = 0
            for labels in _labels(file, found):
                for label in labels:
                    yield Item(row_key(part, row), f"{stamp} {row}", look.label(label), None, stamp)
                    row += 1

    def read(self, path: AnyFile, item: Item) -> bytes:
        """Read an image from the temporary file of its row group."""
        stamp, row = item.where.rsplit(" ", 1)
        with self._using:
            group, first = self._group(path, stamp, int(row))
        return group.read(int(row) - first)

    def about(self, path: AnyFile, item: Item) -> Mapping[str, Any]:
        """Return the other columns of a row. This is fast if rows are requested in order, or almost so by threads."""
        row = int(item.where.rpartition(" ")[2])
        with self._using:
            here, batches = self._along
            if here != path or not batches or row < batches[0][0]:
                batches, self._rows = deque([(0, [])], maxlen=2), self._others(path)
                self._along = path, batches
            while row >= batches[-1][0] + len(batches[-1][1]):
                try:
                    batches.append(next(self._rows))
                except StopIteration:
                    raise ReadError(f"{path.name} has fewer rows than when it was listed") from None
            first, rows = batches[-1] if row >= batches[-1][0] else batches[0]
            return rows[row - first]

    def fields(self, paths: list[AnyFile]) -> pa.Schema:
        """Return the types of the other columns, with the notes of `datasets`."""
        return self._columns_of(paths[0]).others

    def class_names(self, paths: list[AnyFile]) -> dict[str, int]:
        """Return the class names that `datasets` noted for the column of labels."""
        return {name: number for number, name in enumerate(self._columns_of(paths[0]).names)}

    def pack(self, file: BinaryIO, entries: Iterator[Entry], count: int, head: Head) -> list[str]:
        """Write one row group per batch, without statistics and compression, which do nothing for images."""
        import pyarrow.parquet as pq

        schema, rows = written_schema(head), 0
        options: dict[str, Any] = {"compression": "none", "use_dictionary": False, "write_statistics": False}
        with pq.ParquetWriter(file, schema, **options) as writer:
            for batch in written_batches(entries, head, schema):
                writer.write_batch(batch)
                rows += len(batch)
        return [f" {row}" for row in range(rows)]

    def complete(self, folder: AnyFile, names: list[str], head: Head) -> None:
        """Do nothing: the schema holds all information."""

    def _columns(self, path: AnyFile, file: pq.ParquetFile) -> Columns:
        """Return the columns of a file; raises DiffcleanError if another file has other columns."""
        schema = file.schema_arrow
        if self._first is None:
            self._first = path, schema
        if not schema.equals(self._first[1]):
            raise DiffcleanError(
                f"{path} has other columns than {self._first[0]}: {', '.join(schema.names[:20])} and "
                f"{', '.join(self._first[1].names[:20])}.",
                "Give files of one data set, for example with a pattern in quotes.",
            )
        return columns_of(schema, path, self._label_from)

    def _columns_of(self, path: AnyFile) -> Columns:
        with _file(path) as (_, file):
            return columns_of(file.schema_arrow, path, self._label_from)

    def _group(self, path: AnyFile, stamp: str, row: int) -> tuple[_Group, int]:
        """Return the row group of a row, and the first row of the group."""
        now = stamp_at(path)
        check_unchanged(path, stamp, now)
        starts = self._starts_of(path, now)
        number = bisect_right(starts, row) - 1
        if row >= starts[-1]:
            raise ReadError("its row is not there any more")
        place = path, now, number
        if place not in self._groups:
            with _file(path) as (_, file):
                found = columns_of(file.schema_arrow, path, self._label_from)
                self._groups[place] = _spooled(file, number, found.image, path.stat().st_size)
            while len(self._groups) > 1 and sum(each.ends[-1] for each in self._groups.values()) > _KEPT_BYTES:
                self._groups.popitem(last=False)
        self._groups.move_to_end(place)
        return self._groups[place], starts[number]

    def _starts_of(self, path: AnyFile, stamp: str) -> list[int]:
        """Return the first row of each row group, followed by the number of rows."""
        if self._starts.get(path, ("", []))[0] != stamp:
            with _file(path) as (_, file):
                counts = [file.metadata.row_group(n).num_rows for n in range(file.metadata.num_row_groups)]
            self._starts[path] = stamp, list(accumulate(counts, initial=0))
        return self._starts[path][1]

    def _others(self, path: AnyFile) -> Iterator[tuple[int, list[dict[str, Any]]]]:
        with _file(path) as (_, file):
            names = columns_of(file.schema_arrow, path, self._label_from).others.names
            if not names:
                yield 0, [{}] * file.metadata.num_rows
                return
            first = 0
            for batch in file.iter_batches(_ROWS_AT_ONCE, columns=names, use_threads=False):
                yield first, batch.to_pylist()
                first += len(batch)


@contextmanager
def _file(path: AnyFile) -> Iterator[tuple[str, pq.ParquetFile]]:
    """Open a Parquet file and return it with its stamp; its errors become DiffcleanErrors."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with opened(path) as file, pq.ParquetFile(file, buffer_size=_BUFFER_BYTES, pre_buffer=False) as found:
            yield stamp_of(file), found
    except (OSError, pa.ArrowException) as error:
        raise ReadError(
            f"{path} cannot be read as Parquet: {str(error)[:200]}", "Write that file anew, or leave it out."
        ) from error


def _labels(file: pq.ParquetFile, found: Columns) -> Iterator[list[Any]]:
    if found.label is None:
        yield [None] * file.metadata.num_rows
        return
    for batch in file.iter_batches(_ROWS_AT_ONCE, columns=[found.label], use_threads=False):
        yield batch.column(0).to_pylist()


def _check_rows(path: AnyFile, rows: int) -> None:
    """Refuse a file with more rows than its size allows, before the rows are listed: no image is that small."""
    size = path.stat().st_size
    if rows > _FEW_ROWS + size // _SMALLEST_BYTES:
        raise DiffcleanError(
            f"{path} says that it has {rows:,} rows; so many images cannot be in {size:,} bytes.",
            "Write that file anew, or leave it out.",
        )


def _spooled(file: pq.ParquetFile, number: int, column: str, size: int) -> _Group:
    group, most = _Group(), max(_SMALL_GROUP, _MOST_PACKED * size)
    for batch in file.iter_batches(_IMAGES_AT_ONCE, row_groups=[number], columns=[column], use_threads=False):
        with temporary("images of a Parquet file"):
            for value in batch.column(0):
                group.add(value.as_py())
        if group.ends[-1] > most:
            raise ReadError(f"its row group holds more than {most:,} bytes of images, many times what the file has")
    with temporary("images of a Parquet file"):
        group.file.flush()
    return group


ARCHIVE = Parquet
