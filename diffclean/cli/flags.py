"""Turns the field names in messages of the other rooms, which stand in backquotes, into command-line options."""

from __future__ import annotations

import re

import click

_ARGUMENTS = {"data": "DATA", "model": "MODEL", "source": "SOURCE"}
"""The names that the help texts use for positional arguments of the Python functions."""
_OTHER_NAMES = {"parameters": "parameter"}


def with_flags(text: str, command: click.Command | None) -> str:
    """Write each field that a message names in backquotes as the option of the verb.

    Args:
        text: the text of a message, such as "`epochs` must be at least 1, not 0".
        command: the verb that runs; if it is None, nothing is changed.

    Returns:
        The text with options, such as "--epochs must be at least 1, not 0". A word in backquotes that is not a field of
        the verb stays as it is.
    """
    if command is None:
        return text
    flags = {str(param.name): max(param.opts, key=len) for param in command.params if isinstance(param, click.Option)}
    visible = {str(param.name) for param in command.params if not getattr(param, "hidden", False)}

    def flag(found: re.Match[str]) -> str:
        name = _OTHER_NAMES.get(found[1], found[1])
        if name in flags and name in visible:
            return flags[name]
        return _ARGUMENTS.get(name, found[0])

    return re.sub(r"`([a-z][a-z_]*)`", flag, text)
