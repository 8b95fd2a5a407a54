"""An index of the attempts in a journal, in a database on disk, so that memory does not grow with the journal."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from threading import Lock

from diffclean.errors import DiffcleanError

Place = tuple[bytes, int]
"""The key of an image as raw bytes, which sort as keys do, and a variant."""
Found = tuple[int, int, str | None]
"""The offset and length of an attempt in the log, in bytes, and the new stamp of its source if there is one."""

_CACHE_KIB = 16_384
_SCHEMA = """
CREATE TABLE attempts (
    key BLOB, variant INTEGER, number INTEGER, offset INTEGER, length INTEGER, stamp TEXT,
    PRIMARY KEY (key, variant, number)
) WITHOUT ROWID
"""


class JournalIndex:
    """A private database without a name, held in memory while it is small.

    When it outgrows its cache, SQLite moves it to a temporary file that is removed with the process. The index is
    rebuilt from the log each time, so it can be neither out of date nor damaged.
    """

    def __init__(self) -> None:
        self._database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        for setting in (f"cache_size = -{_CACHE_KIB}", "journal_mode = OFF", "synchronous = OFF"):
            self._database.execute(f"PRAGMA {setting}")
        self._database.execute(_SCHEMA)
        self._using = Lock()  # one thread may append while another reads

    def add(self, attempts: Iterable[tuple[bytes, int, int, int, int]]) -> None:
        """Add attempts: key, variant, number (the order of attempts at one place), offset, length."""
        self._change("INSERT INTO attempts VALUES (?, ?, ?, ?, ?, NULL)", attempts)

    def forget(self, places: Iterable[Place]) -> None:
        """Remove all attempts at these places."""
        self._change("DELETE FROM attempts WHERE key = ? AND variant = ?", places)

    def stamp(self, stamps: Iterable[tuple[str, bytes]]) -> None:
        """Set new stamps of sources: (stamp, key)."""
        self._change("UPDATE attempts SET stamp = ? WHERE key = ?", stamps)

    def count(self) -> int:
        """The number of attempts."""
        with self._using, _errors():
            (count,) = self._database.execute("SELECT count(*) FROM attempts").fetchone()
        return int(count)

    def all(self) -> Iterator[Found]:
        """Every attempt, sorted by key, variant and number. The index must not change while this is read."""
        with _errors():
            found = self._database.execute("SELECT offset, length, stamp FROM attempts ORDER BY key, variant, number")
            # Do not yield from the cursor: a generator that ends early would close it, perhaps after the database.
            yield from iter(found.fetchone, None)

    def last(self) -> Iterator[Found]:
        """The last attempt at each place, sorted by key and variant. The index must not change while this is read."""
        with _errors():
            # With max(), SQLite takes the other columns from the row that has it.
            rows = self._database.execute(
                "SELECT offset, length, stamp, max(number) FROM attempts GROUP BY key, variant ORDER BY key, variant"
            )
            for offset, length, stamp, _ in rows:
                yield offset, length, stamp

    def last_of(self, key: bytes) -> list[Found]:
        """The last attempt at each variant of one image; other threads may add attempts meanwhile."""
        with self._using, _errors():
            rows = self._database.execute(
                "SELECT offset, length, stamp, max(number) FROM attempts WHERE key = ? "
                "GROUP BY variant ORDER BY variant",
                (key,),
            ).fetchall()
        return [(offset, length, stamp) for offset, length, stamp, _ in rows]

    def close(self) -> None:
        """Close the database."""
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
            f"The temporary index of the journal cannot be written ({error}).",
            "Free some space for temporary files, or set TMPDIR to another folder for them.",
        ) from error
