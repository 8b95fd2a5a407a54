"""Standard output and error during a run: the work continues even if nobody reads them any more.

A line that cannot be written is dropped, because its reader has closed the pipe (`| head`), the disk is full, or the
stream was closed (`2>&-`). The code that printed it can ask afterwards whether everything arrived.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO, cast


class ClosedError(OSError):
    """The stream was closed before the run."""


class Enduring:
    """A text stream that drops what cannot be written and otherwise behaves like the original stream.

    Attributes:
        lost: why the first line was dropped. None: everything was written.
    """

    def __init__(self, stream: TextIO, lost: OSError | ValueError | None = None) -> None:
        self._stream = stream
        self.lost = lost

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._stream)

    def write(self, text: str) -> int:
        """Write what can be written, and return the length of the whole text."""
        try:
            return self._stream.write(text)
        except (OSError, ValueError) as error:
            self._drop(error)
            return len(text)

    def flush(self) -> None:
        """Write the buffered text, or drop it."""
        try:
            self._stream.flush()
        except (OSError, ValueError) as error:
            self._drop(error)

    def _drop(self, error: OSError | ValueError) -> None:
        self.lost = self.lost or error
        # Python would try to write its buffered text again, with every later line and at the end, so the buffer goes to
        # the null device. A reader that has closed its pipe does not come back; a disk may have room again.
        with contextlib.suppress(OSError, ValueError, AttributeError):
            descriptor = self._stream.fileno()
            kept = None if isinstance(error, BrokenPipeError) else os.dup(descriptor)
            _open_null(descriptor)
            if kept is not None:
                try:
                    self._stream.flush()
                finally:
                    os.dup2(kept, descriptor)
                    os.close(kept)


@contextlib.contextmanager
def enduring() -> Iterator[None]:
    """Replace `sys.stdout` and `sys.stderr` by `Enduring` streams during the block."""
    _fill_closed()
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (cast(TextIO, _endured(stream)) for stream in before)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        sys.stdout, sys.stderr = before


def lost(stream: TextIO) -> OSError | ValueError | None:
    """Return why some text on a stream was not written, or None if all of it was."""
    stream.flush()
    return stream.lost if isinstance(stream, Enduring) else None


def _endured(stream: TextIO | None) -> Enduring:
    if stream is not None:
        return Enduring(stream)
    return Enduring(Path(os.devnull).open("w", encoding="utf-8"), ClosedError("it is closed"))


def _fill_closed() -> None:
    """Open those of the descriptors 0, 1 and 2 that the caller has closed.

    Otherwise the next file that is opened, such as a journal, would get the number of standard error, and the messages
    of libraries and child processes would be written into it.
    """
    for descriptor, stream in enumerate((sys.__stdin__, sys.__stdout__, sys.__stderr__)):
        if stream is None:
            try:
                os.fstat(descriptor)
            except OSError:
                _open_null(descriptor)


def _open_null(descriptor: int) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    if null != descriptor:
        os.dup2(null, descriptor)
        os.close(null)
    os.set_inheritable(descriptor, True)
