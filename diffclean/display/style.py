"""What a stream can show: terminal or not, colour or not."""

from __future__ import annotations

import os
from typing import TextIO


def is_terminal(stream: TextIO) -> bool:
    """Whether a person watches `stream` on a terminal that can redraw a line."""
    try:
        return stream.isatty() and os.environ.get("TERM") != "dumb"
    except ValueError:  # closed
        return False


def has_color(stream: TextIO) -> bool:
    """Whether to colour: on a terminal, unless NO_COLOR is set and not empty (no-color.org)."""
    return is_terminal(stream) and not os.environ.get("NO_COLOR")


def strong(text: str, stream: TextIO, ansi: str = "1;31") -> str:
    """`text` in bold red (or another ANSI style) where colour is welcome."""
    return f"\x1b[{ansi}m{text}\x1b[0m" if has_color(stream) else text
