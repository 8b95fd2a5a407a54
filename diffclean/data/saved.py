"""The format of Hugging Face data sets on disk, as `Dataset.save_to_disk` writes them: Arrow streams and `state.json`.

pyarrow reads and writes them alone; the `datasets` library is not needed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, BinaryIO

from diffclean.data.archive import Entry, Head, Look, row_key
from diffclean.data.atomic import write_whole
from diffclean.data.columns import Columns, columns_of, image_bytes, written_batches, written_schema
from diffclean.data.item import Item, ReadError
from diffclean.data.json_file import read_json
from diffclean.data.packed_sink import PackedSink
from diffclean.data.packed_source import PackedSource
from diffclean.data.shard_files import is_of, opened, stamp_of
from diffclean.errors import DiffcleanError

if TYPE_CHECKING:
    import pyarrow as pa

_SUFFIX, _STATE, _INFO, _DICT = ".arrow", "state.json", "dataset_info.json", "dataset_dict.json"


def reads(where: str) -> bool:
    """A folder of `save_to_disk`, or Arrow files."""
    if "://" in where:
        return False
    path = Path(where)
    return is_of(where, _SUFFIX) or (path / _DICT).is_file() or ((path / _STATE).is_file() and (path / _INFO).is_file())


def open_source(where: str, **options: Any) -> PackedSource:
    """See `PackedSource`. `label_from`: a column."""
    path = Path(where)
    if (path / _DICT).is_file():
        parts = sorted(each.name for each in path.iterdir() if (each / _STATE).is_file())
        raise DiffcleanError(
            f"{where} holds the parts {', '.join(parts) or 'of a data set'}.",
            f"Give one of them, for example {path / (parts[0] if parts else 'train')}",
        )
    source = PackedSource(Saved(options.get("label_from")), where, **options)
    if (path / _STATE).is_file():
        source.keep_only(_stated(path))
    return source


def open_sink(where: str, **options: Any) -> PackedSink:
    """See `PackedSink`."""
    return PackedSink(Saved(), where, **options)


class Saved:
    """See the module; an `Archive`.

    Args:
        label_from: the column of labels; None: the one that looks like it.
    """

    name, title, suffix, ending, folder = "huggingface", "a Hugging Face data set on disk", _SUFFIX, "#", ""
    single = False

    def __init__(self, label_from: str | None = None) -> None:
        self._label_from = label_from
        self._using = Lock()
        self._open: tuple[Path, str, list[Any], list[int]] | None = None

    def entries(self, part: str, path: Path, look: Look) -> Iterator[Item]:
        """One item a row."""
        found = self._columns(path)
        row = 0
        with self._using:
            stamp, batches, _ = self._batches(path)
        for batch in batches:
            labels = [None] * len(batch) if found.label is None else batch.column(found.label).to_pylist()
            for label in labels:
                yield Item(row_key(part, row), f"{stamp} {row}", look.label(label), None, stamp)
                row += 1

    def read(self, path: Path, item: Item) -> bytes:
        """The image of a row."""
        return image_bytes(self._cell(path, item, self._columns(path).image))

    def about(self, path: Path, item: Item) -> Mapping[str, Any]:
        """The other columns of a row."""
        return {name: self._cell(path, item, name) for name in self._columns(path).others.names}

    def fields(self, paths: list[Path]) -> pa.Schema:
        """The other columns, with their features."""
        return self._columns(paths[0]).others

    def class_names(self, paths: list[Path]) -> dict[str, int]:
        """The names of the column of labels."""
        return {name: number for number, name in enumerate(self._columns(paths[0]).names)}

    def pack(self, file: BinaryIO, entries: Iterator[Entry], count: int, head: Head) -> list[str]:
        """One stream of batches."""
        import pyarrow as pa

        schema, rows = written_schema(head), 0
        with pa.ipc.new_stream(file, schema) as writer:
            for batch in written_batches(entries, head, schema):
                writer.write_batch(batch)
                rows += len(batch)
        return [f" {row}" for row in range(rows)]

    def complete(self, folder: Path, names: list[str], head: Head) -> None:
        """Write what `load_from_disk` looks for; the features stand in the files themselves."""
        state: dict[str, Any] = {
            "_data_files": [{"filename": name} for name in names],
            "_fingerprint": hashlib.sha256("\0".join(names).encode()).hexdigest()[:16],
            "_format_columns": None,
            "_format_kwargs": {},
            "_format_type": None,
            "_output_all_columns": False,
            "_split": None,
        }
        write_whole(folder / _INFO, b"{}\n")
        write_whole(folder / _STATE, json.dumps(state, indent=2).encode() + b"\n")

    def _cell(self, path: Path, item: Item, column: str) -> Any:
        stamp, text = item.where.rsplit(" ", 1)
        with self._using:
            now, batches, starts = self._batches(path)
        if stamp and stamp != now:
            raise ReadError(f"{path.name} was changed after it was listed; type the same command again")
        row = int(text)
        number = next((n for n in range(len(batches)) if starts[n] <= row < starts[n] + len(batches[n])), None)
        if number is None:
            raise ReadError("its row is not there any more")
        return batches[number].column(column)[row - starts[number]].as_py()

    def _columns(self, path: Path) -> Columns:
        with self._using, _errors(path):
            self._batches(path)
            return columns_of(self._schema, path, self._label_from)

    def _batches(self, path: Path) -> tuple[str, list[Any], list[int]]:
        """The batches of a file: mapped into memory, checked once, never copied as a whole."""
        import pyarrow as pa

        with _errors(path):
            with opened(path) as file:
                stamp = stamp_of(file)
            if self._open is None or self._open[:2] != (path, stamp):
                reader = pa.ipc.open_stream(pa.memory_map(str(path)))
                batches, starts, total = [], [], 0
                for batch in reader:
                    batch.validate(full=True)  # offsets that lead out of a hostile file would be followed
                    batches.append(batch)
                    starts.append(total)
                    total += len(batch)
                self._schema = reader.schema
                self._open = path, stamp, batches, starts
            return stamp, self._open[2], self._open[3]


@contextmanager
def _errors(path: Path) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise ReadError(
            f"{path} cannot be read as an Arrow stream: {str(error)[:200]}", "Save the data set anew."
        ) from error


def _stated(folder: Path) -> set[str]:
    """The files that `state.json` names: others of the folder are left from before."""
    content = read_json(folder / _STATE)
    listed = content.get("_data_files") if isinstance(content, dict) else None
    names = (
        {str(each.get("filename")) for each in listed if isinstance(each, dict)} if isinstance(listed, list) else set()
    )
    if not names or (missing := sorted(name for name in names if "/" in name or not (folder / name).is_file())):
        said = f"{missing[0]!a} is not there" if names else "it names none"
        raise DiffcleanError(
            f"{folder / _STATE} should name the files of the data set: {said}.", "Save the data set anew."
        )
    return names


ARCHIVE = Saved
