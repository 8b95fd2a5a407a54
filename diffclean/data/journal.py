"""The journal: one JSON line for each attempt, written when the attempt ends.

During a run, it is the record that counts.

`journal.jsonl` (for a shard `journal-<i>-of-<n>.jsonl`) stays beside the manifest after the run has finished, because
the same command continues from it when it is run again. A later run can add two other kinds of line. `{"forget": key,
"variant": n, "why": ...}` says that earlier attempts at a variation no longer count, because the variation is gone.
`{"stamp": key, "is": ...}` says that the file date of an original has changed while its bytes have not.

Rows are not held in memory: they stay in the file, and an index (`journal_index`) records their positions.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any

from diffclean.data.journal_index import Found, JournalIndex
from diffclean.data.json_file import json_of
from diffclean.data.keys import BadKeyError, key_bytes
from diffclean.data.manifest import GREATEST, Row, row_from_dict, rows_as_lines, with_source_label
from diffclean.data.records import FileLog, Log, Records
from diffclean.data.shard import Shard, file_name
from diffclean.errors import DiffcleanError

_AT_ONCE = 4096


def journal_name(shard: Shard | None = None) -> str:
    """The file name of the journal of a run or of one of its shards."""
    return file_name("journal", shard, "jsonl")


def journal_path(out: Path, shard: Shard | None = None) -> Path:
    """The path of the journal of a run or of one of its shards."""
    return out / journal_name(shard)


def read_journal(path: Path) -> list[Row]:
    """The attempts that count, sorted by key and variant; an empty list if there is no journal.

    An incomplete last line is left out.

    Raises:
        DiffcleanError: the journal is damaged before its last line.
    """
    with Journal(FileLog(path, write=False)) as journal:
        return list(journal.rows())


class Journal:
    """An append-only journal. Only the holder of the output's lock may append; anyone may read.

    Args:
        log: the log with the lines written so far.

    Raises:
        DiffcleanError: the journal is damaged before its last line.
    """

    def __init__(self, log: Log) -> None:
        self._log = log
        self._index = JournalIndex()
        self._number = 0
        try:
            self.good_bytes = self._load()
        except BaseException:
            self.close()
            raise

    @classmethod
    def open(cls, where: Path | Records, shard: Shard | None = None) -> Journal:
        """Open or create a journal to append to. An incomplete last line, from a kill or a power cut, is removed.

        Args:
            where: the path of the journal file, or the records of a run whose journal (or whose shard's journal) is
                opened.
            shard: the shard, if `where` are records.

        Raises:
            DiffcleanError: the journal is damaged before its last line.
            WriteError: the journal cannot be written.
        """
        journal = cls(FileLog(where) if isinstance(where, Path) else where.log(journal_name(shard)))
        try:
            journal._log.truncate(journal.good_bytes)
        except BaseException:
            journal.close()
            raise
        return journal

    def rows(self) -> Iterator[Row]:
        """Every attempt that counts, sorted by key and variant; attempts at the same variation are in order of time."""
        return map(self._row, self._index.all())

    def latest(self) -> Iterator[Row]:
        """The last attempt at each variation, which decides whether it is done, sorted by key and variant."""
        return map(self._row, self._index.last())

    def latest_of(self, key: str) -> Iterator[Row]:
        """The same for the variations of one image, also while others are appended."""
        return map(self._row, self._index.last_of(key_bytes(key)))

    def __len__(self) -> int:
        """How many attempts count."""
        return self._index.count()

    def append(self, rows: Iterable[Row]) -> None:
        """Record attempts.

        When the method returns, they are safe from a power cut (one fsync per call, so pass a batch).

        Raises:
            WriteError: the attempts cannot be written; the journal is unchanged.
        """
        rows = list(rows)
        lines = [rows_as_lines([row]) for row in rows]
        offset = self._log.append(b"".join(lines))
        self._index.add(self._places(zip(rows, lines, strict=True), offset))

    def forget(self, variations: Iterable[tuple[str, int, str]]) -> None:
        """Record that the attempts at these variations no longer count. Remove their files first.

        Args:
            variations: for each variation its key, its variant and the reason.
        """
        those = list(variations)
        self._log.append(_lines({"forget": key, "variant": variant, "why": why} for key, variant, why in those))
        self._index.forget((key_bytes(key), variant) for key, variant, _ in those)

    def stamp(self, stamps: Mapping[str, str]) -> None:
        """Record new stamps of originals whose bytes have not changed: key -> stamp."""
        self._log.append(_lines({"stamp": key, "is": stamp} for key, stamp in stamps.items()))
        self._index.stamp((stamp, key_bytes(key)) for key, stamp in stamps.items())

    def close(self) -> None:
        """Close the file. A second call does nothing."""
        self._log.close()
        self._index.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _row(self, found: Found) -> Row:
        offset, length, stamp = found
        values = with_source_label(json.loads(self._log.read(offset, length)))
        return Row(**(values if stamp is None else values | {"source_stamp": stamp}))

    def _places(self, rows: Iterable[tuple[Row, bytes]], offset: int) -> Iterator[tuple[bytes, int, int, int, int]]:
        for row, line in rows:
            yield key_bytes(row.key), row.variant, self._number, offset, len(line)
            self._number += 1
            offset += len(line)

    def _load(self) -> int:
        """Index the log and return the number of bytes in its complete lines."""
        good = _good_lines(self._log)
        offset = 0
        while lines := list(islice(good, _AT_ONCE)):
            rows: list[tuple[Row, bytes]] = []
            begin = offset
            for line, content in lines:
                if not isinstance(content, Row):  # a note changes rows before it, so these must be in the index
                    self._index.add(self._places(rows, begin))
                    self._heed(content)
                    rows, begin = [], offset + len(line)
                else:
                    rows.append((content, line))
                offset += len(line)
            self._index.add(self._places(rows, begin))
        return offset

    def _heed(self, note: dict[str, Any]) -> None:
        if "forget" in note:
            self._index.forget([(key_bytes(note["forget"]), note["variant"])])
        else:
            self._index.stamp([(note["is"], key_bytes(note["stamp"]))])


def _lines(notes: Iterable[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(note).encode() + b"\n" for note in notes)


def _good_lines(log: Log) -> Iterator[tuple[bytes, Row | dict[str, Any]]]:
    """Each complete line with its content."""
    bad_line = 0
    for number, line in enumerate(log.lines(), start=1):
        try:
            if not line.endswith(b"\n"):
                raise ValueError("no end of line")
            # Only an escape can spell half of a character; looking for them costs most lines nothing.
            content = _said(json_of(line) if b"\\u" in line else json.loads(line))
        except (ValueError, TypeError, AttributeError, RecursionError, BadKeyError):
            bad_line = bad_line or number
            continue
        if bad_line:  # nothing follows a line that was cut off by a kill
            raise DiffcleanError(
                f"{log.where} is damaged in line {bad_line}, with good lines after it.",
                "Something other than diffclean changed it. Restore it, or start again with another `out`.",
            )
        yield line, content


def _said(values: Any) -> Row | dict[str, Any]:
    """Convert the values of a line to a row or a note; raises ValueError for anything else."""
    if "forget" in values:
        variant = values.get("variant")
        if isinstance(values["forget"], str) and type(variant) is int and 0 <= variant <= GREATEST["variant"]:
            key_bytes(values["forget"])
            return dict(values)
    elif "stamp" in values:
        if isinstance(values["stamp"], str) and isinstance(values.get("is"), str):
            key_bytes(values["stamp"])
            return dict(values)
    else:
        row = row_from_dict(values)
        key_bytes(row.key)
        return row
    raise ValueError("a note of an unknown kind")
