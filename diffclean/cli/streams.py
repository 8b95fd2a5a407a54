"""Standard output and error for the length of a run: who reads them may go away, and the work goes on.

A reader that hangs up (`| head`), a full disk, a stream that was closed (`2>&-`): a line that cannot be written is
dropped. Whoever printed it can ask afterwards whether all of it arrived.
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
    """A text stream that drops what cannot be written; all else is the stream's own.

    Attributes:
        lost: why the first line was dropped; None: everything was written.
    """

    def __init__(self, stream: TextIO, lost: OSError | ValueError | None = None) -> None:
        self._stream = stream
        self.lost = lost

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._stream)

    def write(self, text: str) -> int:
        """Write what can be written; returns the length of all of it."""
        try:
            return self._stream.write(text)
        except (OSError, ValueError) as error:
            self._drop(error)
            return len(text)

    def flush(self) -> None:
        """Hand on what waits, or drop it."""
        try:
            self._stream.flush()
        except (OSError, ValueError) as error:
            self._drop(error)

    def _drop(self, error: OSError | ValueError) -> None:
        self.lost = self.lost or error
        # What Python holds back it would try to write again, with every later line and at the end: let it go to where
        # all is taken. A reader that has hung up does not come back; a disk may have room again.
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
    """Have `sys.stdout` and `sys.stderr` endure for the block."""
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
    """Why something that was printed on a stream did not arrive; None: all did."""
    stream.flush()
    return stream.lost if isinstance(stream, Enduring) else None


def _endured(stream: TextIO | None) -> Enduring:
    if stream is not None:
        return Enduring(stream)
    return Enduring(Path(os.devnull).open("w", encoding="utf-8"), ClosedError("it is closed"))


def _fill_closed() -> None:
    """Open what the caller has closed of descriptors 0, 1 and 2.

    The next file that is opened, a journal perhaps, would get the number of standard error, and what libraries and
    child processes say would be written into it.
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
