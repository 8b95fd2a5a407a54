"""Which label an image has: its first folder, unless the data set is laid out in another way."""

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
_HINT = "Say where the labels are (variate, train): `label_from` "


def labelled_from(root: Path, items: Iterable[Item], label_from: str | None) -> Iterator[Item]:
    """The items, one by one, with the labels that `label_from` gives them.

    Args:
        root: of the data set.
        items: labelled by their first folders.
        label_from: `folder`: the first folder. `subfolder`: the second, below `train` and `val`. A file below root, and
            perhaps a column, `metadata.csv:label`: what its rows say. None: the first folder.

    Raises:
        UsageError: the file or the column is not there, or the file cannot be understood.
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
    """How the images of a data set lie in folders.

    Attributes:
        firsts: the first folders; `""` for images that lie in none.
        deep: whether every image lies in a folder below its first.
    """

    firsts: set[str] = field(default_factory=set)
    deep: bool = True

    def note(self, key: str) -> None:
        """One more image."""
        first, slash, rest = key.partition("/")
        self.firsts.add(first if slash else "")
        self.deep = self.deep and "/" in rest

    def check(self, root: Path) -> None:
        """Refuse to guess where first folders are hardly meant as classes, or a table beside the images has labels.

        Raises:
            DiffcleanError: names what was seen and what to type.
        """
        firsts = self.firsts
        for name in _TABLES:
            if (root / name).is_file() and (firsts == {""} or firsts <= _SPLITS | {""}):
                raise DiffcleanError(
                    f"{root} has a {name} beside its images, which may hold the labels.",
                    f"{_HINT}{name}, or `label_from` {FOLDER} to leave it alone.",
                )
        if firsts and firsts <= _SPLITS and (len(firsts) > 1 or self.deep):
            named = ", ".join(f"{name}/" for name in sorted(firsts))
            raise DiffcleanError(
                f"{root} has {named} where classes are expected: that looks like the parts of a data set.",
                f"Give one part, such as {root / min(firsts)}. {_HINT}{SUBFOLDER} (the folders below these), or "
                f"`label_from` {FOLDER} (these are the classes).",
            )


def _from_table(root: Path, text: str) -> dict[str, str]:
    name, _, column = text.partition(":")
    path = root / name
    try:
        if path.stat().st_size > _TABLE_BYTES or not path.is_file():
            raise UsageError(f"{path} is no table of labels: expected a plain file of at most {_TABLE_BYTES} bytes.")
        content = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        choices = f"{_HINT}{FOLDER}, {SUBFOLDER}, or a table below the source such as metadata.csv"
        raise UsageError(f"{path}: {error.strerror}.", choices) from error
    except ValueError as error:
        raise UsageError(f"{path} is no text in UTF-8: {error}.") from error
    try:
        rows = (
            _json_rows(content) if path.suffix in (".jsonl", ".ndjson") else list(csv.DictReader(io.StringIO(content)))
        )
    except (ValueError, csv.Error, RecursionError) as error:
        raise UsageError(f"{path} cannot be understood: {error}.") from error
    columns = list(rows[0]) if rows else []
    file_column = next((one for one in _NAMES if one in columns), None)
    label_column = column or next((one for one in _LABELS if one in columns), None)
    if file_column is None or label_column is None or label_column not in columns:
        shown = ", ".join(safe_text(str(one)) for one in columns[:20])
        raise UsageError(
            f"{path} has the columns: {shown or 'none'}.",
            f"Expected a file's name in one of {', '.join(_NAMES)}, and the label: {_HINT}{name}:COLUMN",
        )
    folder = Path(name).parent.as_posix()
    before = "" if folder == "." else f"{folder}/"
    return {safe_text(f"{before}{row[file_column]}"): safe_text(str(row[label_column] or "")) for row in rows}


def _json_rows(content: str) -> list[dict[str, object]]:
    rows = [json.loads(line) for line in content.splitlines() if line.strip()]
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError("a line is no JSON object")
    return rows
