"""The manifest, which records the outcome for every image, with one row for each attempt."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffclean.data.classes import checked_classes
from diffclean.data.json_file import json_of
from diffclean.data.keys import key_bytes
from diffclean.data.places import place_of
from diffclean.data.records import FolderRecords, Records
from diffclean.data.shard import Shard, file_name
from diffclean.data.shard_files import entries_of
from diffclean.errors import DiffcleanError

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

FORMAT_VERSION = 1
_ROWS_AT_ONCE = 32_768
_VERSION_KEY, _CLASSES_KEY = b"diffclean.format_version", b"diffclean.class_to_idx"
_MANY_ROWS = 100_000
_TEXT_BYTES = 64 * 2**20
"""The most that the texts of `_ROWS_AT_ONCE` rows may take: 2 KiB a row, where real rows have a few hundred bytes."""
_UNPACKED, _SPARE_BYTES = 64, 64 * 2**20
"""A manifest may unpack to so many times its size, plus this many bytes."""
_SHARD_NAME = re.compile(r"manifest-([0-9]{1,6})-of-([0-9]{1,6})\.parquet")


class Status(StrEnum):
    """How an attempt ended."""

    OK = "ok"
    FAILED = "failed"
    FILTERED = "filtered"


@dataclass(frozen=True, slots=True)
class Row:
    """One attempt at one variation.

    Attributes:
        key: the key of the original image.
        variant: 0 or more.
        output: the key of the variation in the output folder; `""` if none was written.
        label: the class, spelled as in keys.
        status: how the attempt ended.
        error: why it failed or was filtered; `""` if it did neither.
        seed: the seed of this image and variant, an unsigned 64-bit integer.
        source_sha256: the sha256 of the original's bytes in hexadecimal; `""` if they were never read.
        output_sha256: the sha256 of the variation's bytes; `""` if none was written.
        width: the width of the variation in pixels; 0 if there is none.
        height: the height of the variation in pixels; 0 if there is none.
        source_width: the width of the original in pixels, as seen (after EXIF orientation); 0 if unknown.
        source_height: the height of the original in pixels, as seen; 0 if unknown.
        engine: the fingerprint of the engine.
        source_label: the class in the source, which differs from `label` if labels were replaced (`variate --labels`).
        output_bytes: the size of the variation's file; 0 if none was written or an earlier version of diffclean wrote
            it. This field and the next are stored in the journal only, and two rows that differ in nothing else are
            equal.
        source_stamp: the value of `Item.stamp` when the original was read.
    """

    key: str
    variant: int = 0
    output: str = ""
    label: str = ""
    status: Status = Status.OK
    error: str = ""
    seed: int = 0
    source_sha256: str = ""
    output_sha256: str = ""
    width: int = 0
    height: int = 0
    source_width: int = 0
    source_height: int = 0
    engine: str = ""
    source_label: str = ""
    output_bytes: int = field(default=0, compare=False)
    source_stamp: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "status", Status(self.status))
        # Messages quote file names, and those need not be Unicode; Parquet text must be.
        object.__setattr__(self, "error", self.error.encode("utf-8", "backslashreplace").decode())
        if not 0 <= self.seed < 2**64:
            raise ValueError(f"expected a seed of 0..2**64-1, found {self.seed}")


COLUMNS = tuple(column.name for column in fields(Row) if column.compare)
"""The columns of the manifest."""
_JOURNAL_ONLY = frozenset(column.name for column in fields(Row)) - frozenset(COLUMNS)
GREATEST = dict.fromkeys((c.name for c in fields(Row) if c.type == "int"), 2**31 - 1)
GREATEST |= {"seed": 2**64 - 1, "output_bytes": 2**63 - 1}
"""The greatest number that a field may hold; none may be negative."""


def row_from_dict(values: Mapping[str, Any]) -> Row:
    """A row from JSON or Parquet; fields that only the journal has may be missing.

    Raises:
        ValueError: a column is missing, unknown or of the wrong type.
    """
    values = with_source_label(values)
    if set(values) - _JOURNAL_ONLY != set(COLUMNS):
        raise ValueError(f"expected the columns {', '.join(COLUMNS)}; found {', '.join(map(str, values))}")
    for column in fields(Row):
        if column.name not in values:
            continue
        expected = int if column.type == "int" else str
        value = values[column.name]
        if not isinstance(value, expected) or isinstance(value, bool):
            raise ValueError(f"{column.name} must be {expected.__name__}; found {value!r:.80}")
        if isinstance(value, int) and not 0 <= value <= GREATEST[column.name]:
            raise ValueError(f"{column.name} must be 0 to {GREATEST[column.name]}; found {value!r:.80}")
    return Row(**values)


def with_source_label(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a row, with `source_label` added if it is missing.

    Earlier versions of diffclean did not write `source_label` and never replaced labels.
    """
    return {"source_label": values.get("label", ""), **values}


def latest(rows: Iterable[Row]) -> dict[tuple[str, int], Row]:
    """The last attempt at each (key, variant), which decides what is done; `rows` are in the order of the attempts."""
    return {(row.key, row.variant): row for row in rows}


def manifest_name(shard: Shard | None = None) -> str:
    """The file name of the manifest of a run or of one of its shards."""
    return file_name("manifest", shard, "parquet")


def write_manifest(
    out: Path, rows: Iterable[Row], *, class_to_idx: Mapping[str, int], shard: Shard | None = None
) -> Path:
    """Write `manifest.parquet`, or `manifest-<i>-of-<n>.parquet` for a shard, whole or not at all.

    Args:
        out: the output folder.
        rows: every attempt in order. They are stored sorted by key and variant, so that the file does not depend on the
            order in which images were finished.
        class_to_idx: the number of each class; stored in the file.
        shard: None: the whole data set.

    Raises:
        WriteError: the manifest cannot be written.
    """
    ordered = sorted(rows, key=row_place)
    write_sorted_manifest(FolderRecords(out), ordered, class_to_idx=class_to_idx, shard=shard)
    return out / manifest_name(shard)


def write_sorted_manifest(
    records: Records, rows: Iterable[Row], *, class_to_idx: Mapping[str, int], shard: Shard | None = None
) -> None:
    """The same for rows that are already sorted; only some thousands of them are held in memory at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema, rest = _schema(class_to_idx), iter(rows)
    with (
        records.stream(manifest_name(shard)) as file,
        pq.ParquetWriter(file, schema, compression="zstd") as writer,
    ):
        while some := list(islice(rest, _ROWS_AT_ONCE)):
            columns = {name: [getattr(row, name) for row in some] for name in COLUMNS}
            writer.write_table(pa.table(columns, schema=schema))


def row_place(row: Row) -> tuple[bytes, int]:
    """The value that the rows of a manifest are sorted by."""
    return key_bytes(row.key), row.variant


def read_run_manifest(path: Path) -> list[Row]:
    """Every row of a manifest; the attempts at one (key, variant) are in order.

    Raises:
        DiffcleanError: the manifest is missing, damaged, or written by a newer diffclean.
    """
    return list(manifest_rows(path))


def manifest_rows(path: Path) -> Iterator[Row]:
    """The rows of a manifest, read some thousands at a time; raises as `read_run_manifest` does."""
    import pyarrow as pa

    with _opened(path) as file:
        try:
            for batch in file.iter_batches(_ROWS_AT_ONCE, use_threads=False):
                yield from map(row_from_dict, _unfolded(batch).to_pylist())
        except (OSError, pa.ArrowException) as error:
            raise DiffcleanError(f"{path} cannot be read as Parquet: {error}") from error
        except ValueError as error:
            raise DiffcleanError(f"{path} is not a diffclean manifest: {error}.") from error


def read_manifest_classes(path: Path) -> dict[str, int]:
    """The `class_to_idx` that is stored in a manifest; raises as `read_run_manifest` does."""
    with _opened(path) as file:
        stored = file.schema_arrow.metadata.get(_CLASSES_KEY, b"null")
    try:
        return checked_classes(json_of(stored))
    except ValueError as error:
        raise DiffcleanError(f"{path} holds a damaged class_to_idx: {error}.") from error


def shard_manifests(out: Path) -> dict[Shard, Path]:
    """The manifests that shards have written to `out`, on disk or in a bucket."""
    named = ((_SHARD_NAME.fullmatch(name), out / name) for name, _ in entries_of(place_of(out)))
    found = ((int(match[1]), int(match[2]), path) for match, path in named if match)
    return {Shard(index, count): path for index, count, path in found if 1 <= index <= count}


def _schema(class_to_idx: Mapping[str, int]) -> pa.Schema:
    import pyarrow as pa

    types = {"variant": pa.int32(), "seed": pa.uint64()}
    types |= dict.fromkeys(("width", "height", "source_width", "source_height"), pa.int32())
    metadata = {_VERSION_KEY: str(FORMAT_VERSION), _CLASSES_KEY: json.dumps(dict(class_to_idx))}
    return pa.schema([(name, types.get(name, pa.string())) for name in COLUMNS], metadata=metadata)


@contextmanager
def _opened(path: Path) -> Iterator[pq.ParquetFile]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    place = place_of(path)
    try:
        # Opening a pipe of that name would wait for ever.
        if isinstance(place, Path) and place.exists() and not place.is_file():
            raise DiffcleanError(f"{path} is not a plain file.")
        # Not read_table, which would take a folder name like `a=b` in the path for a column.
        # One thread everywhere: Arrow's own threads release the bytes late, perhaps after Python has ended.
        with pq.ParquetFile(place.open("rb")) as first:
            _check_size(path, first.metadata, place.stat().st_size)
            texts = _texts(path, first.schema_arrow)
        # A text that many rows have stays one text, until it is known how much room all of them need.
        opened = pq.ParquetFile(place.open("rb"), read_dictionary=texts)
    except FileNotFoundError:
        raise DiffcleanError(f"{path} does not exist.") from None
    except (OSError, pa.ArrowException) as error:
        raise DiffcleanError(f"{path} cannot be read as Parquet: {error}") from error
    with closing(opened):
        version = (opened.schema_arrow.metadata or {}).get(_VERSION_KEY, b"none").decode("ascii", "replace")
        if version != str(FORMAT_VERSION):
            raise DiffcleanError(
                f"{path} has manifest format {version}; this diffclean reads {FORMAT_VERSION}.",
                "Is it a diffclean manifest? If so: pip install --upgrade diffclean",
            )
        yield opened


def _check_size(path: Path, metadata: pq.FileMetaData, size_bytes: int) -> None:
    """Refuse a small file that claims to hold much before it is read: each real row has its own seed of 8 bytes."""
    rows = metadata.num_rows
    if rows > _MANY_ROWS and 8 * rows > size_bytes:
        raise DiffcleanError(f"{path} is not a diffclean manifest: {size_bytes} bytes cannot hold {rows:,} images.")
    groups = map(metadata.row_group, range(metadata.num_row_groups))
    unpacked = sum(group.column(n).total_uncompressed_size for group in groups for n in range(group.num_columns))
    if unpacked > _UNPACKED * size_bytes + _SPARE_BYTES:
        raise DiffcleanError(f"{path} is not a diffclean manifest: {size_bytes:,} bytes unpack to {unpacked:,}.")


def _texts(path: Path, schema: pa.Schema) -> list[str]:
    """The names of the columns of texts; refuses a table whose columns are neither texts nor whole numbers."""
    import pyarrow.types as kinds

    texts = []
    for column in schema:
        kind = column.type.value_type if kinds.is_dictionary(column.type) else column.type
        if kinds.is_string(kind) or kinds.is_large_string(kind):
            texts.append(column.name)
        elif not kinds.is_integer(kind):
            raise DiffcleanError(
                f"{path} is not a diffclean manifest: its column {column.name:.80} holds {kind!s:.80}; expected are "
                "texts and whole numbers."
            )
    if len(set(schema.names)) < len(schema.names):
        raise DiffcleanError(f"{path} is not a diffclean manifest: it has two columns of the same name.")
    return texts


def _unfolded(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Rows with a text of their own in each cell; raises ValueError if those would take too much memory."""
    import pyarrow as pa
    import pyarrow.compute as pc

    folded = [column for column in batch.columns if pa.types.is_dictionary(column.type)]
    lengths = (pc.binary_length(column.dictionary).take(column.indices) for column in folded)
    if (whole := sum(pc.sum(each).as_py() or 0 for each in lengths)) > _TEXT_BYTES:
        raise ValueError(f"the texts of {len(batch):,} rows would take {whole:,} bytes")
    columns = [each.dictionary_decode() if pa.types.is_dictionary(each.type) else each for each in batch.columns]
    return pa.RecordBatch.from_arrays(columns, batch.schema.names)


def rows_as_lines(rows: Iterable[Row]) -> bytes:
    """JSON Lines, one row per line. Keys need no special treatment, because JSON escapes the remaining characters."""
    return b"".join(json.dumps(asdict(row)).encode() + b"\n" for row in rows)
