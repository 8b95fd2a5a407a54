"""Messages of the rooms below name fields in backquotes; here they become what people type."""

from __future__ import annotations

import re

import click

_ARGUMENTS = {"data": "DATA", "model": "MODEL", "source": "SOURCE"}
"""Arguments of the Python functions that have no name of their own on the command line."""
_OTHER_NAMES = {"parameters": "parameter"}


def with_flags(text: str, command: click.Command | None) -> str:
    """`text` in which each field in backquotes that `command` has is written as its option.

    Args:
        text: of a message, such as "`epochs` must be at least 1, not 0".
        command: the verb that runs; None: nothing is changed.

    Returns:
        "--epochs must be at least 1, not 0". A word in backquotes that is no field of the verb stays as it is.
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
