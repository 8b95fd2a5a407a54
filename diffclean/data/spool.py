"""A list that is as long as a data set and lies on disk, so that memory does not grow with it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from typing import Any

_IN_MEMORY_BYTES = 4 * 2**20


class Spool:
    """Values that JSON can say, appended one after another and read again from the first, as often as wanted.

    They lie in memory while they are few, then in a temporary file that has no name and goes with the process. One
    reader at a time; nothing may be appended while it reads.
    """

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES)  # noqa: SIM115 - goes with the spool
        self._count = 0

    def append(self, value: Any) -> None:
        """Add a value to the end."""
        self._file.write(json.dumps(value, separators=(",", ":")).encode() + b"\n")
        self._count += 1

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Any]:
        self._file.seek(0)
        for line in self._file:
            yield json.loads(line)
        self._file.seek(0, 2)
