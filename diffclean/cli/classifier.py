"""The options that say of a classifier what its file does not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from diffclean.cli import frame

_OPTIONS: dict[str, dict[str, Any]] = {
    "arch": {"metavar": "ARCH", "help": "Of a state dict."},
    "classes": {
        "type": click.Path(path_type=Path),
        "metavar": "FILE",
        "help": "Its classes in the order of its logits: one a line, or JSON.  [default: the data's order]",
    },
    "mean": {
        "type": float,
        "nargs": 3,
        "metavar": "R G B",
        "help": "What it subtracts from pixels in 0..1.  [default: timm's, or ImageNet's]",
    },
    "std": {
        "type": float,
        "nargs": 3,
        "metavar": "R G B",
        "help": "What it divides by.  [default: timm's, or ImageNet's]",
    },
    "size": {
        "type": click.IntRange(16),
        "help": "Side of its input in px.  [default: its own, or the data's]",
    },
}


class Renamed(click.Option):
    """An option whose former name still works, in files and in the environment too, and is not shown in the help."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """The name of today alone."""
        every, self.opts = self.opts, self.opts[:1]
        try:
            return super().get_help_record(ctx)
        finally:
            self.opts = every


def classifier_options(
    role: str, former: str | None = None
) -> Callable[[Callable[..., frame.Result]], Callable[..., frame.Result]]:
    """Add `--<role>-arch`, `--<role>-size` and the like to a verb.

    Args:
        role: what the verb calls the classifier, "classifier" or "teacher".
        former: what it once called it.
    """

    def decorate(function: Callable[..., frame.Result]) -> Callable[..., frame.Result]:
        for name, settings in reversed(_OPTIONS.items()):
            names = [f"--{each}-{name}" for each in (role, former) if each]
            function = click.option(*names, f"{role}_{name}", cls=Renamed, **settings)(function)
        return function

    return decorate
