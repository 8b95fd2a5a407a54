"""Write docs/verbs/*.md, one page a verb, from the commands themselves: `make docs`.

tests/cli/test_docs.py fails when a page is stale. The pages are rendered here and not by click's help formatter, so
that they do not change with click's version or the width of a terminal.
"""

from __future__ import annotations

from pathlib import Path

import click

from diffclean.cli import frame
from diffclean.cli.classifier import Renamed
from diffclean.cli.config import option_name
from diffclean.cli.main import VERBS, cli

PAGES = Path(__file__).parent / "verbs"


def value_text(param: click.Parameter) -> str:
    """What an option takes: `a|b`, `INTEGER 1..`, `FILE.toml`, or nothing for a flag."""
    kind = param.type
    if isinstance(param, click.Option) and (param.is_flag or param.count):
        return ""
    if isinstance(kind, click.Choice):
        return " \\| ".join(str(choice) for choice in kind.choices)
    if param.metavar:
        return param.metavar
    name = {"integer range": "INTEGER", "float range": "FLOAT"}.get(kind.name, kind.name.upper())
    low, high = getattr(kind, "min", None), getattr(kind, "max", None)
    if low is not None or high is not None:
        name += f" {'' if low is None else low}..{'' if high is None else high}"
    return name + (" (repeatable)" if getattr(param, "multiple", False) else "")


def default_text(param: click.Parameter) -> str:
    """The default, where it is a value and not a computation or a sentinel of click's."""
    value = param.default
    if isinstance(param, click.Option) and param.is_flag and param.secondary_opts:  # --compile/--no-compile
        return f"`{(param.opts if value else param.secondary_opts)[0]}`" if isinstance(value, bool) else ""
    plain = isinstance(value, str | int | float | Path) and not isinstance(value, bool)
    return f"`{value}`" if plain and str(value) else ""


def option_rows(params: list[click.Parameter]) -> list[str]:
    """A table of options."""
    rows = ["| Option | Value | Default | |", "|---|---|---|---|"]
    for param in params:
        former = param.opts[1:] if isinstance(param, Renamed) else []
        names = ", ".join(f"`{name}`" for name in [*param.opts, *param.secondary_opts] if name not in former)
        text = (getattr(param, "help", "") or "").replace("|", "\\|")
        # A default that is worked out is said in the help text.
        text, _, said = text.partition("[default: ")
        default = default_text(param) or said.rstrip("]")
        rows.append(f"| {names} | {value_text(param)} | {default} | {text.strip()} |")
    return rows


def usage(command: click.Command) -> str:
    """`diffclean variate [OPTIONS] SOURCE`."""
    arguments = []
    for param in command.params:
        if isinstance(param, click.Argument):
            choices = param.type.choices if isinstance(param.type, click.Choice) else None
            name = "|".join(choices) if choices else (param.metavar or (param.name or "").upper()).strip("[]")
            name += "..." if param.nargs != 1 else ""
            arguments.append(name if param.required else f"[{name}]")
    return " ".join(["diffclean", command.name or "", "[OPTIONS]", *arguments])


def page(command: click.Command) -> str:
    """The Markdown page of one verb."""
    options = [param for param in command.params if isinstance(param, click.Option) and not param.hidden]
    own: list[click.Parameter] = [param for param in options if param.name not in frame.SHARED]
    shared: list[click.Parameter] = [param for param in options if param.name in frame.SHARED]
    name = command.name or ""
    lines = [
        f"# diffclean {name}",
        "<!-- Written by `make docs` from the command itself: change its help text, not this page. -->",
        "",
        "```",
        usage(command),
        "```",
        "",
        (command.help or "").replace("\b\n", ""),
        "",
    ]
    if own:
        first = option_name(own[0]).upper()
        lines += [
            "## Options",
            "",
            *option_rows(own),
            "",
            f"Each can also be set in the environment (`DIFFCLEAN_{name.upper()}_{first}`, or `DIFFCLEAN_{first}` for "
            "every verb) and in a configuration file: [configuration](../configuration.md).",
            "",
        ]
    if shared:
        lines += ["## Options of every verb", "", *option_rows(shared), ""]
    if command.epilog:
        lines += [command.epilog.replace("\b\n", ""), ""]
    return "\n".join(lines)


def index(names: list[str]) -> str:
    """The list of pages."""
    rows = [f"| [{name}]({name}.md) | {VERBS[name][1]} |" for name in names]
    return "\n".join(["# Verbs", "<!-- Written by `make docs`. -->", "", "| Verb | |", "|---|---|", *rows, ""])


def pages() -> dict[str, str]:
    """File name -> text of every page."""
    ctx = click.Context(cli, info_name="diffclean")
    names = cli.list_commands(ctx)
    commands = {name: cli.get_command(ctx, name) for name in names}
    made = {f"{name}.md": page(command) for name, command in commands.items() if command is not None}
    return {"README.md": index(names), **made}


def main() -> None:
    """Write every page, and remove those of verbs that are gone."""
    PAGES.mkdir(exist_ok=True)
    wanted = pages()
    for path in PAGES.glob("*.md"):
        if path.name not in wanted:
            path.unlink()
    for name, text in wanted.items():
        (PAGES / name).write_text(text, encoding="utf-8")
    print(f"{len(wanted)} pages in {PAGES}")


if __name__ == "__main__":
    main()
