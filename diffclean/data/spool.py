"""A list on disk, so that memory does not grow with the size of the data set."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from diffclean.data.atomic import WriteError

_IN_MEMORY_BYTES = 4 * 2**20


class Spool:
    """A list of JSON values that can be appended to and read from the start as often as needed.

    A small list is held in memory. A larger one is moved to a temporary file without a name, which disappears with the
    process. Only one reader may read at a time, and nothing may be appended while it reads.
    """

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES)  # noqa: SIM115 - goes with the spool
        self._count = 0
        self._at_end = True

    def append(self, value: Any) -> None:
        """Add a value at the end."""
        with temporary():
            if not self._at_end:
                self._file.seek(0, 2)
                self._at_end = True
            self._file.write(json.dumps(value, separators=(",", ":")).encode() + b"\n")
        self._count += 1

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Any]:
        with temporary():
            self._file.seek(0)
        self._at_end = False
        for line in self._file:
            yield json.loads(line)


@contextmanager
def temporary(what: str = "the list of images") -> Iterator[None]:
    """Say in the errors of a block that they are those of a temporary file, and what can be done.

    Raises:
        WriteError: in place of an OSError.
    """
    try:
        yield
    except OSError as error:
        raise WriteError(
            f"The temporary file with {what} cannot be written ({error.strerror}).",
            "Free some space for temporary files, or set TMPDIR to another folder for them.",
        ) from error
