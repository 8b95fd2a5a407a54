"""What became of every image: the manifest, a row an attempt (DESIGN 4)."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffclean.data.atomic import write_whole
from diffclean.data.classes import checked_classes
from diffclean.data.keys import key_bytes
from diffclean.data.shard import Shard, file_name
from diffclean.errors import DiffcleanError

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT_VERSION = 1
_VERSION_KEY, _CLASSES_KEY = b"diffclean.format_version", b"diffclean.class_to_idx"
_MANY_ROWS = 100_000
_SHARD_NAME = re.compile(r"manifest-(\d+)-of-(\d+)\.parquet")


class Status(StrEnum):
    """How an attempt ended."""

    OK = "ok"
    FAILED = "failed"
    FILTERED = "filtered"


@dataclass(frozen=True, slots=True)
class Row:
    """One attempt at one variation.

    Attributes:
        key: the original image.
        variant: 0 or more.
        output: the variation's key under the output folder; `""` if none was written.
        label: the class, spelled as in keys.
        status: how it ended.
        error: why it failed or was filtered; `""` if it did not.
        seed: of this image and variant, an unsigned 64-bit integer.
        source_sha256: of the original's bytes, in hexadecimal; `""` if they were never read.
        output_sha256: of the variation's bytes; `""` if none was written.
        width: of the variation in pixels; 0 if there is none.
        height: as width.
        source_width: of the original in pixels, as seen (after EXIF orientation); 0 if unknown.
        source_height: as source_width.
        engine: the fingerprint of the engine.
        source_label: the class that the source has, where `label` may be another (`variate --labels`).
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

    def __post_init__(self) -> None:
        object.__setattr__(self, "status", Status(self.status))
        # Messages quote file names, and those need not be Unicode; Parquet text must be.
        object.__setattr__(self, "error", self.error.encode("utf-8", "backslashreplace").decode())
        if not 0 <= self.seed < 2**64:
            raise ValueError(f"expected a seed of 0..2**64-1, found {self.seed}")


COLUMNS = tuple(column.name for column in fields(Row))


def row_from_dict(values: Mapping[str, Any]) -> Row:
    """A row from JSON or Parquet.

    Raises:
        ValueError: a column is missing, unknown or of the wrong type.
    """
    values = {"source_label": values.get("label", ""), **values}  # it came later than the others
    if set(values) != set(COLUMNS):
        raise ValueError(f"expected the columns {', '.join(COLUMNS)}; found {', '.join(map(str, values))}")
    for column in fields(Row):
        expected = int if column.type == "int" else str
        if not isinstance(values[column.name], expected) or isinstance(values[column.name], bool):
            raise ValueError(f"{column.name} should be {expected.__name__}; found {values[column.name]!r}")
    return Row(**values)


def latest(rows: Iterable[Row]) -> dict[tuple[str, int], Row]:
    """The last attempt at each (key, variant), which decides what is done; `rows` in the order of the attempts."""
    return {(row.key, row.variant): row for row in rows}


def write_manifest(
    out: Path, rows: Iterable[Row], *, class_to_idx: Mapping[str, int], shard: Shard | None = None
) -> Path:
    """Write `manifest.parquet`, or `manifest-<i>-of-<n>.parquet` of a shard, whole.

    Args:
        out: the output folder.
        rows: every attempt in order; stored sorted by key and variant, so that the file does not depend on the order
            in which images were finished.
        class_to_idx: stored in the file.
        shard: None: the whole data set.

    Raises:
        WriteError: it cannot be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    ordered = sorted(rows, key=lambda row: (key_bytes(row.key), row.variant))
    columns = {name: [getattr(row, name) for row in ordered] for name in COLUMNS}
    file = io.BytesIO()
    pq.write_table(pa.table(columns, schema=_schema(class_to_idx)), file, compression="zstd")
    path = out / file_name("manifest", shard, "parquet")
    write_whole(path, file.getvalue(), owner=shard.name if shard else "")
    return path


def read_manifest(path: Path) -> list[Row]:
    """Every row of a manifest; the attempts at one (key, variant) are in order.

    Raises:
        DiffcleanError: missing, damaged, or written by a newer diffclean.
    """
    try:
        return [row_from_dict(values) for values in _table(path).to_pylist()]
    except ValueError as error:
        raise DiffcleanError(f"{path} is not a diffclean manifest: {error}.") from error


def read_manifest_classes(path: Path) -> dict[str, int]:
    """The `class_to_idx` that is stored in a manifest; raises as `read_manifest` does."""
    try:
        return checked_classes(json.loads(_table(path).schema.metadata.get(_CLASSES_KEY, b"null")))
    except ValueError as error:
        raise DiffcleanError(f"{path} holds a damaged class_to_idx: {error}.") from error


def shard_manifests(out: Path) -> dict[Shard, Path]:
    """The manifests that shards have written to `out`."""
    found = ((_SHARD_NAME.fullmatch(path.name), path) for path in out.iterdir())
    return {Shard(int(match[1]), int(match[2])): path for match, path in found if match}


def _schema(class_to_idx: Mapping[str, int]) -> pa.Schema:
    import pyarrow as pa

    types = {"variant": pa.int32(), "seed": pa.uint64()}
    types |= dict.fromkeys(("width", "height", "source_width", "source_height"), pa.int32())
    metadata = {_VERSION_KEY: str(FORMAT_VERSION), _CLASSES_KEY: json.dumps(dict(class_to_idx))}
    return pa.schema([(name, types.get(name, pa.string())) for name in COLUMNS], metadata=metadata)


def _table(path: Path) -> pa.Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # Not read_table: that would take a folder name like `a=b` on the way for a column.
        # One thread: Arrow's own let go of the bytes late, and Python must not have ended by then.
        data = path.read_bytes()
        file = pq.ParquetFile(io.BytesIO(data))
        _check_rows(path, file.metadata.num_rows, len(data))
        table = file.read(use_threads=False)
    except FileNotFoundError:
        raise DiffcleanError(f"{path} does not exist.") from None
    except (OSError, pa.ArrowException) as error:
        raise DiffcleanError(f"{path} cannot be read as Parquet: {error}") from error
    version = (table.schema.metadata or {}).get(_VERSION_KEY, b"none").decode("ascii", "replace")
    if version != str(FORMAT_VERSION):
        raise DiffcleanError(
            f"{path} has manifest format {version}; this diffclean reads {FORMAT_VERSION}.",
            "Is it a diffclean manifest? If so: pip install --upgrade diffclean",
        )
    return table


def _check_rows(path: Path, rows: int, size_bytes: int) -> None:
    """Refuse a small file of many equal rows before they are built: a row of ours has a seed of its own, 8 bytes."""
    if rows > _MANY_ROWS and 8 * rows > size_bytes:
        raise DiffcleanError(f"{path} is not a diffclean manifest: {size_bytes} bytes cannot hold {rows:,} images.")


def rows_as_lines(rows: Iterable[Row]) -> bytes:
    """JSON Lines, one row a line; keys need no care since JSON escapes what is left."""
    return b"".join(json.dumps(asdict(row)).encode() + b"\n" for row in rows)
