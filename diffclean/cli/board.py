"""Where lines for people go: above the bar, or to standard error as it is."""

from __future__ import annotations

import sys
from typing import Protocol


class Board(Protocol):
    """Where text for people goes while work runs."""

    def write(self, line: str) -> None:
        """Print one line without disturbing the bar."""


class PlainBoard:
    """Standard error as it is."""

    def write(self, line: str) -> None:
        """Print one line."""
        print(line, file=sys.stderr, flush=True)
