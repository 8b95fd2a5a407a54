"""A table of labels beside the images of a folder.

`metadata.csv` or `metadata.jsonl`, and the other columns of the table.
"""

from __future__ import annotations

import csv
import io
import json
import posixpath
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffclean.data.bucket_path import AnyFile
from diffclean.data.json_file import json_of
from diffclean.data.keys import label_text, safe_text
from diffclean.errors import UsageError

if TYPE_CHECKING:
    import pyarrow as pa

FOLDER, SUBFOLDER = "folder", "subfolder"
LABEL_HINT = "To say where the labels are (variate, train): `label_from` "
_NAMES = ("file_name", "filename", "image", "path")
_LABELS = ("label", "labels", "class", "class_name", "category")
_TABLE_BYTES = 256 * 2**20
_FEW_CELLS = 10_000
"""A table of so many cells may be small; each cell above takes a byte at least, if only for the comma beside it."""


@dataclass(frozen=True)
class Table:
    """The content of a table.

    Attributes:
        labels: key -> label.
        others: key -> the values in the other columns.
        types: the types of the other columns.
    """

    labels: Mapping[str, str] = field(default_factory=dict)
    others: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    types: Mapping[str, pa.DataType] = field(default_factory=dict)

    @property
    def schema(self) -> pa.Schema:
        """The names and types of the other columns."""
        import pyarrow as pa

        return pa.schema(list(self.types.items()))

    def about(self, key: str) -> dict[str, Any]:
        """The values in the other columns for an image."""
        said = self.others.get(key, {})
        return {name: _fitting(said.get(name), type) for name, type in self.types.items()}


def is_table(label_from: str | None) -> bool:
    """Whether `label_from` names a table."""
    return label_from not in (None, FOLDER, SUBFOLDER)


def table_beside(root: AnyFile, label_from: str | None) -> Table:
    """The table that `label_from` names, see `table_of`; an empty one if it names none."""
    return table_of(root, str(label_from)) if is_table(label_from) else Table()


def table_of(root: AnyFile, text: str) -> Table:
    """Read a table that lies beside images.

    Args:
        root: the folder of the data set.
        text: a file below `root`, with or without the column of labels: `metadata.csv:label`.

    Raises:
        UsageError: the file or the column does not exist, or the file cannot be parsed.
    """
    name, _, column = text.partition(":")
    path = root / name
    rows = _rows(path)
    columns = list(rows[0]) if rows else []
    file_column = next((one for one in _NAMES if one in columns), None)
    label_column = column or next((one for one in _LABELS if one in columns), None)
    if file_column is None or label_column is None or label_column not in columns:
        shown = ", ".join(safe_text(str(one)) for one in columns[:20])
        raise UsageError(
            f"{path} has the columns: {shown or 'none'}.",
            f"Expected the name of the file in one of {', '.join(_NAMES)}, and the label. {LABEL_HINT}{name}:COLUMN",
        )
    folder = Path(name).parent.as_posix()
    before = "" if folder == "." else f"{folder}/"
    named = {_key(f"{before}{row[file_column]}"): row for row in rows if row.get(file_column)}
    others = [one for one in columns if isinstance(one, str) and one not in (file_column, label_column)]
    return Table(
        {key: _label(row.get(label_column)) for key, row in named.items()},
        {key: {one: row.get(one) for one in others} for key, row in named.items()},
        {one: _type_of([row.get(one) for row in named.values()]) for one in others},
    )


def _key(text: str) -> str:
    """The key of a file that a row names; `./cat.png` is `cat.png`."""
    return safe_text(posixpath.normpath(text))


def _label(value: Any) -> str:
    """The label in a cell. 0 and false are labels; an empty cell is none."""
    return "" if value is None else label_text(value if isinstance(value, str) else json.dumps(value))


def _rows(path: AnyFile) -> list[dict[str, Any]]:
    try:
        if path.stat().st_size > _TABLE_BYTES or not path.is_file():
            raise UsageError(f"{path} is not a table of labels: expected a plain file of at most {_TABLE_BYTES} bytes.")
        content = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        choices = f"{LABEL_HINT}{FOLDER}, {SUBFOLDER}, or a table below the source such as metadata.csv"
        raise UsageError(f"{path}: {error.strerror}.", choices) from error
    except ValueError as error:
        raise UsageError(f"{path} is not text in UTF-8: {error}.") from error
    try:
        if path.suffix in (".jsonl", ".ndjson"):
            rows = (json_of(line) for line in content.split("\n") if line.strip())
            return _rectangle(rows, len(content))
        return _rectangle(csv.DictReader(io.StringIO(content)), len(content))
    except (ValueError, csv.Error, RecursionError) as error:
        raise UsageError(f"{path} cannot be parsed: {error}.") from error


def _rectangle(rows: Iterable[Any], characters: int) -> list[dict[str, Any]]:
    """All rows; raises ValueError if the first names far more columns than the file could fill.

    Each row has a cell for each column, so that many short rows below a long one would take memory without end.
    """
    found: list[dict[str, Any]] = []
    for row in rows:
        if not isinstance(row, dict):
            raise ValueError("a line is not a JSON object")
        found.append(row)
        if (cells := len(found) * len(found[0])) > characters + _FEW_CELLS:
            raise ValueError(f"{len(found[0]):,} columns make {cells:,} cells, but it has {characters:,} characters")
    return found


def _type_of(values: list[Any]) -> pa.DataType:
    """Of a column; text where its values are of several types."""
    import pyarrow as pa

    try:
        found = pa.array(values).type
    except (pa.ArrowException, ValueError, TypeError, OverflowError):
        return pa.string()
    return pa.string() if pa.types.is_null(found) else found


def _fitting(value: Any, type: pa.DataType) -> Any:
    """A value as text in a column of texts."""
    import pyarrow as pa

    plain = value is None or isinstance(value, str) or not pa.types.is_string(type)
    return value if plain else json.dumps(value, ensure_ascii=False)
