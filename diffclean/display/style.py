"""What a stream can show: terminal or not, colour or not; and text of others, made safe to show."""

from __future__ import annotations

import os
import unicodedata
from typing import TextIO

_LONGEST = 20_000
_HIDDEN = ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")
"""Unicode's categories of what steers a terminal or is not seen: control, format (bidirectional marks among them), lone
surrogates, private use, line and paragraph separators."""


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


def safe(text: str) -> str:
    r"""Text with whatever could steer a terminal, or deceive who reads it, spelled out as `\x1b` or `\u202e`.

    What people are told quotes file names, class names and the metadata of models, and those may be written by an
    attacker. Every way to the terminal leads through here. Line breaks stay, but what follows one is indented: it can
    not pass for a message of its own.
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
