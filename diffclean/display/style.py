"""What a stream can show (terminal, colour), and how text from other sources is made safe to show."""

from __future__ import annotations

import os
import unicodedata
from typing import TextIO

_LONGEST = 20_000
_HIDDEN = ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")
"""Unicode categories of characters that control a terminal or are invisible: control, format (including bidirectional
marks), lone surrogates, private use, line and paragraph separators."""


def is_terminal(stream: TextIO) -> bool:
    """Whether `stream` is a terminal that can redraw a line."""
    try:
        return stream.isatty() and os.environ.get("TERM") != "dumb"
    except ValueError:  # closed
        return False


def has_color(stream: TextIO) -> bool:
    """Whether to use colour: on a terminal, unless NO_COLOR is set and not empty (no-color.org)."""
    return is_terminal(stream) and not os.environ.get("NO_COLOR")


def strong(text: str, stream: TextIO, ansi: str = "1;31") -> str:
    """`text` in bold red (or another ANSI style) if colour may be used."""
    return f"\x1b[{ansi}m{text}\x1b[0m" if has_color(stream) else text


def safe(text: str) -> str:
    r"""Escape everything in a text that could control a terminal or deceive a reader, as `\x1b` or `\u202e`.

    Messages quote file names, class names and the metadata of models, which an attacker may have written. All output to
    a terminal goes through this function. Line breaks are kept, but the lines after them are indented, so that they
    cannot pass for messages of their own.
    """
    if len(text) > _LONGEST:
        text = f"{text[:_LONGEST]} ... ({len(text) - _LONGEST:,} characters more)"
    if not text.isprintable():
        text = "".join(c if c in "\n\t" or unicodedata.category(c) not in _HIDDEN else _spelled(c) for c in text)
        head, *rest = text.split("\n")
        text = "\n".join([head, *(line if line[:1] in ("", " ", "\t") else f"  {line}" for line in rest)])
    return text


def _spelled(character: str) -> str:
    return (
        character.encode("ascii", "backslashreplace").decode() if ord(character) > 127 else f"\\x{ord(character):02x}"
    )
