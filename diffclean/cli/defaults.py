"""The defaults of the command line, which are taken from the Python functions that do the same work."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import click

from diffclean.errors import UsageError


def take_defaults(command: click.Command, function: Callable[..., Any]) -> None:
    """Give each option the default that `function` has for the argument of the same name.

    Where the default is None, the option has none, and its help text says what happens then.
    """
    arguments = inspect.signature(function).parameters
    for param in command.params:
        known = arguments.get(param.name or "")
        if known is not None and known.default not in (None, inspect.Parameter.empty):
            param.default = known.default if param.multiple else as_typed(known.default)


def as_typed(value: Any) -> Any:
    """A value as it is typed on the command line: the two ends of an interval are joined with a colon."""
    return ":".join(f"{part:g}" for part in value) if isinstance(value, tuple) else value


class Interval(click.ParamType):
    """A click type for two numbers with a colon between them. `Settings` checks later whether they are in range."""

    name = "LOW:HIGH"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, float]:
        """`0.2:0.8` -> (0.2, 0.8)."""
        if isinstance(value, tuple):
            return value
        try:
            low, high = map(float, str(value).split(":"))
        except ValueError:
            raise UsageError(
                f"{value!r} is not an interval of noise levels.", "Give two numbers with a colon between: 0.2:0.8"
            ) from None
        return low, high
