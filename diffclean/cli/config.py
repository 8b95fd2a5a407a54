"""Options from environment variables and from a TOML file. Precedence: command line > environment > file > default.

    engine = "micro"          # at the top level: for every verb that has this option

    [variate]                 # one table for each verb
    steps = 10

click applies the precedence (`Option.envvar`, `Context.default_map`). This module holds the names of options in files
and in the environment, and checks a file; all mistakes in it are reported together.
"""

from __future__ import annotations

import difflib
import logging
import os
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from diffclean.errors import UsageError

log = logging.getLogger(__name__)

NOT_IN_FILES = ("help", "config")
NOT_OPTIONS = {
    f"DIFFCLEAN_{name}"
    for name in ("CACHE", "PREBUILT", "CONTAINER", "IMAGE", "USER", "CPUS", "MEMORY", "TEST_IMAGE", "CONFIG")
}
"""What `environment`, `cli.container` and the files in docker/ read, and no option does."""


def option_name(param: click.Parameter) -> str:
    """The name of a parameter in a file: its longest long option without the dashes, or the name of the argument."""
    longs = [opt.lstrip("-") for opt in param.opts if opt.startswith("--")]
    return max(longs, key=len, default=param.name or "").replace("-", "_")


def option_names(param: click.Parameter) -> list[str]:
    """The name that a parameter has in files, and those that it had before."""
    name = option_name(param)
    longs = [opt.lstrip("-").replace("-", "_") for opt in param.opts if opt.startswith("--")]
    return [name, *(former for former in longs if former != name)]


def name_environment(command: click.Command) -> None:
    """Let each option be set by DIFFCLEAN_<VERB>_<OPTION>, or for all verbs by DIFFCLEAN_<OPTION>."""
    verb = (command.name or "").upper()
    for param in command.params:
        if isinstance(param, click.Option) and param.envvar is None:
            names = [name.upper() for name in option_names(param)]
            param.envvar = [f"DIFFCLEAN_{start}{name}" for start in (f"{verb}_", "") for name in names]


def warn_of_unknown(ctx: click.Context) -> None:
    """Say which DIFFCLEAN_* variables are nobody's: a mistyped one would be ignored without a word."""
    known = _in_environment([ctx.command]) | NOT_OPTIONS
    found = [name for name in os.environ if name.startswith("DIFFCLEAN_") and name not in known]
    if not found:
        return
    known |= _in_environment(command for name in _verb_names(ctx) if (command := _verb(name, ctx)))
    for name in sorted(set(found) - known):
        near = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.8)
        advice = f"did you mean {near[0]}?" if near else "see docs/configuration.md for the names that are."
        log.warning("The environment variable %s is none that diffclean knows: %s", name, advice)


def _in_environment(commands: Iterable[click.Command]) -> set[str]:
    options = (param for command in commands for param in command.params if isinstance(param, click.Option))
    return {name for option in options for name in option.envvar or ()}


def read_config(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """The callback of --config. It is eager, so that the file has been read before other options are looked up."""
    if value is not None:
        ctx.default_map = load(Path(value), ctx)
    return value


def load(path: Path, ctx: click.Context) -> dict[str, Any]:
    """Read the values for the verb of `ctx`.

    Args:
        path: a TOML file.
        ctx: the verb's context; its parent knows the other verbs.

    Returns:
        The values by the name of click's parameter.

    Raises:
        UsageError: the file has mistakes; the message lists all of them, also those about other verbs.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"{path} is not a TOML file: {error}") from error
    verb = ctx.info_name or ""
    problems: list[str] = []
    values: dict[str, Any] = {}
    shared = {key: item for key, item in document.items() if not isinstance(item, dict)}
    tables = {key: item for key, item in document.items() if isinstance(item, dict)}
    own = _params(ctx.command)
    for key, item in shared.items():
        if _norm(key) in own:
            _take(own[_norm(key)], key, item, ctx, values, problems)
        elif _norm(key) not in (every := _all_names(ctx)):
            problems.append(f"{key}: no verb has this option{_nearest(_norm(key), every)}")
    for name, table in tables.items():
        command = _verb(name, ctx)
        if command is None:
            problems.append(f"[{name}]: there is no such verb{_nearest(name, _verb_names(ctx))}")
            continue
        params = _params(command)
        for key, item in table.items():
            label = f"[{name}] {key}"
            if _norm(key) not in params:
                problems.append(f"{label}: {name} has no such option{_nearest(_norm(key), params)}")
            else:  # values for other verbs are checked too, but not used
                _take(params[_norm(key)], label, item, ctx, values if name == verb else {}, problems)
    if problems:
        count = f"{len(problems)} mistake{'s' if len(problems) > 1 else ''}"
        raise UsageError(f"{path}: {count}:\n" + "\n".join(f"  {problem}" for problem in problems))
    return values


def _take(
    param: click.Parameter, label: str, item: Any, ctx: click.Context, values: dict[str, Any], problems: list[str]
) -> None:
    """Check `item` against its parameter; add it to `values`, or what is wrong with it to `problems`."""
    try:
        value = _as_click(param, item)
        param.type_cast_value(ctx, value)
    except (click.BadParameter, ValueError) as error:
        problems.append(f"{label}: {error.message if isinstance(error, click.BadParameter) else error}")
        return
    assert param.name is not None
    values[param.name] = value


def _as_click(param: click.Parameter, item: Any) -> Any:
    """A TOML value as text, as click would get it from a command line, so that 1.5 is not taken for an integer."""
    flag = isinstance(param, click.Option) and param.is_flag
    if flag != isinstance(item, bool):
        raise ValueError(f"expected {'true or false' if flag else 'a value'}, found {item!r}")
    if flag:
        return item
    several = param.nargs != 1 or getattr(param, "multiple", False)
    if several != isinstance(item, list):
        raise ValueError(f"expected {'a list' if several else 'one value'}, found {item!r}")
    return [str(each) for each in item] if several else str(item)


def _norm(key: str) -> str:
    return key.replace("-", "_")


def _params(command: click.Command) -> dict[str, click.Parameter]:
    return {name: param for param in command.params for name in option_names(param) if name not in NOT_IN_FILES}


def _verb_names(ctx: click.Context) -> list[str]:
    group = ctx.parent.command if ctx.parent else None
    return group.list_commands(ctx.parent) if isinstance(group, click.Group) and ctx.parent else [ctx.info_name or ""]


def _verb(name: str, ctx: click.Context) -> click.Command | None:
    if name == ctx.info_name:
        return ctx.command
    group = ctx.parent.command if ctx.parent else None
    return group.get_command(ctx.parent, name) if isinstance(group, click.Group) and ctx.parent else None


def _all_names(ctx: click.Context) -> set[str]:
    commands = (_verb(name, ctx) for name in _verb_names(ctx))
    return {name for command in commands if command is not None for name in _params(command)}


def _nearest(name: str, names: Iterable[str]) -> str:
    """`; did you mean steps?`, or the list of all names if none is similar."""
    known = sorted(names)
    near = difflib.get_close_matches(name, known, n=2, cutoff=0.6)
    return f"; did you mean {' or '.join(near)}?" if near else f"; there are: {', '.join(known)}"
