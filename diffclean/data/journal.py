"""The journal: every attempt as it ends, one JSON line each. It is the truth while a run goes on.

`journal.jsonl` (of a shard `journal-<i>-of-<n>.jsonl`) stays beside the manifest when the run has finished, since
running the same command again goes on from it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

from diffclean.data.atomic import check_plain, read_plain, sync_folders, write_error
from diffclean.data.manifest import Row, row_from_dict, rows_as_lines
from diffclean.data.shard import Shard, file_name
from diffclean.errors import DiffcleanError


def journal_path(out: Path, shard: Shard | None = None) -> Path:
    """Where the journal of a run, or of one of its shards, is."""
    return out / file_name("journal", shard, "jsonl")


def read_journal(path: Path) -> list[Row]:
    """The rows of a journal, in order; none if there is no such file. A torn end is left out.

    Raises:
        DiffcleanError: damaged in the middle.
    """
    try:
        return _parse(read_plain(path), path)[0]
    except FileNotFoundError:
        return []


class Journal:
    """An append-only journal; only the holder of the folder's `Lock` may open one. Use `Journal.open`."""

    def __init__(self, path: Path, descriptor: int, rows: list[Row]) -> None:
        self.path = path
        self._descriptor = descriptor
        self._rows = rows

    @classmethod
    def open(cls, path: Path) -> Journal:
        """Open or begin a journal; a last line that a kill or a power cut tore is cut off.

        Raises:
            DiffcleanError: damaged in the middle.
            WriteError: it cannot be written.
        """
        try:
            # Not waited for: what is there may be a pipe.
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            descriptor = os.open(path, flags, 0o666)
            try:
                check_plain(descriptor, path)
                rows, good_bytes = _parse(read_plain(path), path)
                os.ftruncate(descriptor, good_bytes)
                os.fsync(descriptor)
                sync_folders(path.parent)
            except BaseException:
                os.close(descriptor)
                raise
        except OSError as error:
            raise write_error(error, path) from error
        return cls(path, descriptor, rows)

    def rows(self) -> list[Row]:
        """Every attempt so far, in order."""
        return list(self._rows)

    def append(self, rows: Iterable[Row]) -> None:
        """Record attempts; on return they would outlive a power cut (one fsync a call: give it a batch).

        Raises:
            WriteError: it cannot be written; the journal is as it was.
        """
        rows = list(rows)
        data = memoryview(rows_as_lines(rows))
        before = os.fstat(self._descriptor).st_size
        try:
            while data:
                data = data[os.write(self._descriptor, data) :]
            os.fsync(self._descriptor)
        except OSError as error:
            os.ftruncate(self._descriptor, before)  # half a line must not run into the next one
            raise write_error(error, self.path) from error
        self._rows += rows

    def close(self) -> None:
        """Close the file; twice does no harm."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _parse(data: bytes, path: Path) -> tuple[list[Row], int]:
    """The rows, and how many bytes of the file they take."""
    rows: list[Row] = []
    good_bytes = 0
    bad_line = 0
    for number, line in enumerate(data.splitlines(keepends=True), start=1):
        try:
            if not line.endswith(b"\n"):
                raise ValueError("no end of line")
            row = row_from_dict(json.loads(line))
        except (ValueError, TypeError, AttributeError):
            bad_line = bad_line or number
            continue
        if bad_line:  # a torn end has nothing after it
            raise DiffcleanError(
                f"{path} is damaged in line {bad_line}, with good lines after it.",
                "It was changed by something other than diffclean: restore it, or start again with another -o.",
            )
        rows.append(row)
        good_bytes += len(line)
    return rows, good_bytes
