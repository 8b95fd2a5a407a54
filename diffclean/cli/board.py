"""`Board`: where lines of text are printed while a progress bar may be on the screen."""

from __future__ import annotations

import sys
from typing import Protocol


class Board(Protocol):
    """A place to print lines of text while work is in progress."""

    def write(self, line: str) -> None:
        """Print one line without disturbing the bar."""


class PlainBoard:
    """A board without a progress bar: lines go to standard error."""

    def write(self, line: str) -> None:
        """Print one line."""
        print(line, file=sys.stderr, flush=True)
