"""A list that is as long as a data set and lies on disk, so that memory does not grow with it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from diffclean.errors import DiffcleanError

_IN_MEMORY_BYTES = 4 * 2**20


class Spool:
    """Values that JSON can say, appended one after another and read again from the first, as often as wanted.

    They lie in memory while they are few, then in a temporary file that has no name and goes with the process. One
    reader at a time; nothing may be appended while it reads.
    """

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES)  # noqa: SIM115 - goes with the spool
        self._count = 0
        self._at_end = True

    def append(self, value: Any) -> None:
        """Add a value to the end."""
        with _errors():
            if not self._at_end:
                self._file.seek(0, 2)
                self._at_end = True
            self._file.write(json.dumps(value, separators=(",", ":")).encode() + b"\n")
        self._count += 1

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Any]:
        with _errors():
            self._file.seek(0)
        self._at_end = False
        for line in self._file:
            yield json.loads(line)


@contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DiffcleanError(
            f"A list of the images cannot be kept in a temporary file ({error.strerror}).",
            "Free some space for temporary files, or name another folder for them in TMPDIR.",
        ) from error
