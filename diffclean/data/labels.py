"""The label of an image: its first folder, unless the data set has another layout."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from diffclean.data.item import Item
from diffclean.data.keys import label_of, safe_text
from diffclean.errors import DiffcleanError, UsageError

FOLDER, SUBFOLDER = "folder", "subfolder"
_SPLITS = frozenset("train training val valid validation test testing dev eval holdout".split())  # noqa: SIM905
_TABLES = ("metadata.csv", "metadata.jsonl")
_NAMES = ("file_name", "filename", "image", "path")
_LABELS = ("label", "labels", "class", "class_name", "category")
_TABLE_BYTES = 256 * 2**20
_HINT = "To say where the labels are (variate, train): `label_from` "


def labelled_from(root: Path, items: Iterable[Item], label_from: str | None) -> Iterator[Item]:
    """Give the items, one by one, the labels that `label_from` defines.

    Args:
        root: the folder of the data set.
        items: the items, labelled by their first folders.
        label_from: `folder`: the first folder of the path. `subfolder`: the second folder, below `train` and `val`. A
            file below `root`, with or without a column, such as `metadata.csv:label`: the labels in its rows. None: the
            first folder.

    Raises:
        UsageError: the file or the column does not exist, or the file cannot be parsed.
    """
    if label_from is None or label_from == FOLDER:
        yield from items
    elif label_from == SUBFOLDER:
        for item in items:
            yield replace(item, label=label_of(item.key.partition("/")[2]))
    else:
        labels = _from_table(root, label_from)
        for item in items:
            yield replace(item, label=labels.get(item.key, ""))


@dataclass
class Layout:
    """How the images of a data set are arranged in folders.

    Attributes:
        firsts: the first folders; `""` for images that lie in none.
        deep: whether every image lies in a folder below its first folder.
    """

    firsts: set[str] = field(default_factory=set)
    deep: bool = True

    def note(self, key: str) -> None:
        """Record one more image."""
        first, slash, rest = key.partition("/")
        self.firsts.add(first if slash else "")
        self.deep = self.deep and "/" in rest

    def check(self, root: Path) -> None:
        """Refuse to guess if the first folders do not look like classes, or if a table may hold the labels.

        Raises:
            DiffcleanError: says what was found and what to type.
        """
        firsts = self.firsts
        for name in _TABLES:
            if (root / name).is_file() and (firsts == {""} or firsts <= _SPLITS | {""}):
                raise DiffcleanError(
                    f"{root} has a {name} beside its images, which may hold the labels.",
                    f"{_HINT}{name}, or `label_from` {FOLDER} to ignore this file.",
                )
        if firsts and firsts <= _SPLITS and (len(firsts) > 1 or self.deep):
            named = ", ".join(f"{name}/" for name in sorted(firsts))
            raise DiffcleanError(
                f"{root} has {named} where classes are expected, which look like the parts of a data set.",
                f"Name one part, such as {root / min(firsts)}. {_HINT}{SUBFOLDER} (the folders below these), or "
                f"`label_from` {FOLDER} (these are the classes).",
            )


def _from_table(root: Path, text: str) -> dict[str, str]:
    name, _, column = text.partition(":")
    path = root / name
    try:
        if path.stat().st_size > _TABLE_BYTES or not path.is_file():
            raise UsageError(f"{path} is not a table of labels: expected a plain file of at most {_TABLE_BYTES} bytes.")
        content = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        choices = f"{_HINT}{FOLDER}, {SUBFOLDER}, or a table below the source such as metadata.csv"
        raise UsageError(f"{path}: {error.strerror}.", choices) from error
    except ValueError as error:
        raise UsageError(f"{path} is not text in UTF-8: {error}.") from error
    try:
        rows = (
            _json_rows(content) if path.suffix in (".jsonl", ".ndjson") else list(csv.DictReader(io.StringIO(content)))
        )
    except (ValueError, csv.Error, RecursionError) as error:
        raise UsageError(f"{path} cannot be parsed: {error}.") from error
    columns = list(rows[0]) if rows else []
    file_column = next((one for one in _NAMES if one in columns), None)
    label_column = column or next((one for one in _LABELS if one in columns), None)
    if file_column is None or label_column is None or label_column not in columns:
        shown = ", ".join(safe_text(str(one)) for one in columns[:20])
        raise UsageError(
            f"{path} has the columns: {shown or 'none'}.",
            f"Expected the name of the file in one of {', '.join(_NAMES)}, and the label. {_HINT}{name}:COLUMN",
        )
    folder = Path(name).parent.as_posix()
    before = "" if folder == "." else f"{folder}/"
    return {safe_text(f"{before}{row[file_column]}"): safe_text(str(row[label_column] or "")) for row in rows}


def _json_rows(content: str) -> list[dict[str, object]]:
    rows = [json.loads(line) for line in content.splitlines() if line.strip()]
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError("a line is not a JSON object")
    return rows
