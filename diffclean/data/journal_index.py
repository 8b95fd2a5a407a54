"""Which attempts a journal holds and where, sorted, in a database on disk: memory does not grow with the journal."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from threading import Lock

from diffclean.errors import DiffcleanError

Place = tuple[bytes, int]
"""An image's key as raw bytes, which sort as keys do, and a variant."""
Found = tuple[int, int, str | None]
"""Where an attempt stands in the log (offset and length in bytes), and the stamp of its source if that was renewed."""

_CACHE_KIB = 16_384
_SCHEMA = """
CREATE TABLE attempts (
    key BLOB, variant INTEGER, number INTEGER, offset INTEGER, length INTEGER, stamp TEXT,
    PRIMARY KEY (key, variant, number)
) WITHOUT ROWID
"""


class JournalIndex:
    """A private database without a name, in memory while it is small.

    Beyond its cache SQLite keeps it in a temporary file that goes with the process. It is made anew from the log each
    time, so nothing in it can be out of date or damaged.
    """

    def __init__(self) -> None:
        self._database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        for setting in (f"cache_size = -{_CACHE_KIB}", "journal_mode = OFF", "synchronous = OFF"):
            self._database.execute(f"PRAGMA {setting}")
        self._database.execute(_SCHEMA)
        self._using = Lock()  # one thread appends while another may ask

    def add(self, attempts: Iterable[tuple[bytes, int, int, int, int]]) -> None:
        """Attempts: key, variant, number (which orders those at one place), offset, length."""
        self._change("INSERT INTO attempts VALUES (?, ?, ?, ?, ?, NULL)", attempts)

    def forget(self, places: Iterable[Place]) -> None:
        """Remove all attempts at these places."""
        self._change("DELETE FROM attempts WHERE key = ? AND variant = ?", places)

    def stamp(self, stamps: Iterable[tuple[str, bytes]]) -> None:
        """New stamps of sources: (stamp, key)."""
        self._change("UPDATE attempts SET stamp = ? WHERE key = ?", stamps)

    def count(self) -> int:
        """How many attempts there are."""
        with self._using, _errors():
            (count,) = self._database.execute("SELECT count(*) FROM attempts").fetchone()
        return int(count)

    def all(self) -> Iterator[Found]:
        """Every attempt, sorted by key, variant and number. Nothing may change meanwhile."""
        with _errors():
            found = self._database.execute("SELECT offset, length, stamp FROM attempts ORDER BY key, variant, number")
            # Not the cursor itself: a generator that ends early would close it, perhaps after the database.
            yield from iter(found.fetchone, None)

    def last(self) -> Iterator[Found]:
        """The last attempt at each place, sorted by key and variant. Nothing may change meanwhile."""
        with _errors():
            # With max(), SQLite takes the other columns from the row that has it.
            rows = self._database.execute(
                "SELECT offset, length, stamp, max(number) FROM attempts GROUP BY key, variant ORDER BY key, variant"
            )
            for offset, length, stamp, _ in rows:
                yield offset, length, stamp

    def close(self) -> None:
        """Let go of it."""
        self._database.close()

    def _change(self, statement: str, rows: Iterable[tuple[object, ...]]) -> None:
        with self._using, _errors():
            self._database.execute("BEGIN")
            self._database.executemany(statement, rows)
            self._database.execute("COMMIT")


@contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        raise DiffcleanError(
            f"The temporary index of the journal cannot be kept ({error}).",
            "Free some space for temporary files, or name another folder for them in TMPDIR.",
        ) from error
