"""The format of Hugging Face data sets on disk, as `Dataset.save_to_disk` writes them: Arrow streams and `state.json`.

Only pyarrow reads and writes them; the `datasets` library is not needed.
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import accumulate
from threading import Lock
from typing import TYPE_CHECKING, Any, BinaryIO

from diffclean.data.archive import Entry, Head, Look, row_key
from diffclean.data.bucket_path import AnyFile
from diffclean.data.columns import columns_of, image_bytes, written_batches, written_schema
from diffclean.data.item import Item, ReadError
from diffclean.data.json_file import read_json
from diffclean.data.packed_sink import PackedSink
from diffclean.data.packed_source import PackedSource
from diffclean.data.places import on_disk, place_of, write_at
from diffclean.data.shard_files import check_unchanged, entries_of, is_of, opened, stamp_at
from diffclean.errors import DiffcleanError

if TYPE_CHECKING:
    import pyarrow as pa

_COPIED_BYTES = 4 * 2**30
_SUFFIX, _STATE, _INFO, _DICT = ".arrow", "state.json", "dataset_info.json", "dataset_dict.json"


def reads(where: str) -> bool:
    """Whether this is a folder of `save_to_disk`, or Arrow files."""
    path = place_of(where)
    return is_of(where, _SUFFIX) or (path / _DICT).is_file() or ((path / _STATE).is_file() and (path / _INFO).is_file())


def open_source(where: str, **options: Any) -> PackedSource:
    """See `PackedSource`. `label_from` is a column."""
    path = place_of(where)
    if (path / _DICT).is_file():
        names = (name for name, _ in entries_of(path))
        parts = sorted(name for name in names if (path / name / _STATE).is_file())
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
    """The `Archive` for these files; see the module.

    Args:
        label_from: the column of labels. None: the column that looks like it.
    """

    name, title, suffix, ending, folder = "huggingface", "a Hugging Face data set on disk", _SUFFIX, "#", ""
    single = False

    def __init__(self, label_from: str | None = None) -> None:
        self._label_from = label_from
        self._using = Lock()
        self._streams: OrderedDict[AnyFile, _Stream] = OrderedDict()

    def entries(self, part: str, path: AnyFile, look: Look) -> Iterator[Item]:
        """Yield one item per row."""
        stream = self._opened(path)
        label_column = stream.columns.label
        row = 0
        for number in range(len(stream)):
            with _errors(path):
                batch = stream.batch(number)
                labels = [None] * len(batch) if label_column is None else batch.column(label_column).to_pylist()
            for label in labels:
                yield Item(row_key(part, row), f"{stream.stamp} {row}", look.label(label), None, stream.stamp)
                row += 1

    def read(self, path: AnyFile, item: Item) -> bytes:
        """Return the image of a row."""
        return image_bytes(self._cell(path, item, self._opened(path).columns.image))

    def about(self, path: AnyFile, item: Item) -> Mapping[str, Any]:
        """Return the other columns of a row."""
        return {name: self._cell(path, item, name) for name in self._opened(path).columns.others.names}

    def fields(self, paths: list[AnyFile]) -> pa.Schema:
        """Return the types of the other columns, with their features."""
        return self._opened(paths[0]).columns.others

    def class_names(self, paths: list[AnyFile]) -> dict[str, int]:
        """Return the class names of the column of labels."""
        return {name: number for number, name in enumerate(self._opened(paths[0]).columns.names)}

    def pack(self, file: BinaryIO, entries: Iterator[Entry], count: int, head: Head) -> list[str]:
        """Write one stream of batches."""
        import pyarrow as pa

        schema, rows = written_schema(head), 0
        with pa.ipc.new_stream(file, schema) as writer:
            for batch in written_batches(entries, head, schema):
                writer.write_batch(batch)
                rows += len(batch)
        return [f" {row}" for row in range(rows)]

    def complete(self, folder: AnyFile, names: list[str], head: Head) -> None:
        """Write what `load_from_disk` looks for; the files themselves contain the features."""
        state: dict[str, Any] = {
            "_data_files": [{"filename": name} for name in names],
            "_fingerprint": hashlib.sha256("\0".join(names).encode()).hexdigest()[:16],
            "_format_columns": None,
            "_format_kwargs": {},
            "_format_type": None,
            "_output_all_columns": False,
            "_split": None,
        }
        write_at(folder / _INFO, b"{}\n")
        write_at(folder / _STATE, json.dumps(state, indent=2).encode() + b"\n")

    def _cell(self, path: AnyFile, item: Item, column: str) -> Any:
        stamp, text = item.where.rsplit(" ", 1)
        stream = self._opened(path)
        check_unchanged(path, stamp, stream.stamp)
        row = int(text)
        if row >= stream.starts[-1]:
            raise ReadError("its row is not there any more")
        number = bisect_right(stream.starts, row) - 1
        with _errors(path):
            return stream.batch(number).column(column)[row - stream.starts[number]].as_py()

    def _opened(self, path: AnyFile) -> _Stream:
        """Open a file that is mapped into memory. Files on this machine stay open, because that costs little.

        Of files from a bucket, the copies that were not used for the longest time are given up beyond a limit.
        """
        with self._using, _errors(path):
            stamp = stamp_at(path)
            if path not in self._streams or self._streams[path].stamp != stamp:
                self._streams[path] = _Stream(path, stamp, self._label_from)
                while len(self._streams) > 1 and sum(each.copied for each in self._streams.values()) > _COPIED_BYTES:
                    self._streams.popitem(last=False)
            self._streams.move_to_end(path)
            return self._streams[path]


class _Stream:
    """A file of Arrow batches, mapped into memory and never copied as a whole.

    Attributes:
        stamp: the stamp of the file.
        copied: the bytes that a copy of it takes on this machine; 0 if it lies here.
        columns: the columns of the file.
        starts: the first row of each batch, followed by the number of rows.
    """

    def __init__(self, path: AnyFile, stamp: str, label_from: str | None) -> None:
        import pyarrow as pa

        with opened(path) as file, on_disk(path, file) as (place, copied):
            # `opened` makes sure that this is a plain file: mapping a pipe would wait forever.
            reader = pa.ipc.open_stream(pa.memory_map(place))
        self.stamp, self.copied = stamp, copied
        self.columns = columns_of(reader.schema, path, label_from)
        self._batches = list(reader)
        self._checked = [False] * len(self._batches)
        self.starts = list(accumulate(map(len, self._batches), initial=0))

    def batch(self, number: int) -> pa.RecordBatch:
        """Return one batch, checked once, because offsets that lead out of a hostile file would be followed."""
        batch = self._batches[number]
        if not self._checked[number]:
            batch.validate(full=True)
            self._checked[number] = True
        return batch

    def __len__(self) -> int:
        return len(self._batches)


@contextmanager
def _errors(path: AnyFile) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise ReadError(
            f"{path} cannot be read as an Arrow stream: {str(error)[:200]}", "Save the data set anew."
        ) from error


def _stated(folder: AnyFile) -> set[str]:
    """Return the files that `state.json` names; other files in the folder are left over from earlier."""
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
