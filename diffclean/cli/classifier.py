"""The options of a verb that state what the file of a classifier does not say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from diffclean.cli import frame

_OPTIONS: dict[str, dict[str, Any]] = {
    "arch": {"metavar": "ARCH", "help": "The architecture of the {role}, if its file is a state dict."},
    "classes": {
        "type": click.Path(path_type=Path),
        "metavar": "FILE",
        "help": "A file that lists the classes in the order of the {role}'s logits, one on each line or as JSON.  "
        "[default: the order of the data set]",
    },
    "mean": {
        "type": float,
        "nargs": 3,
        "metavar": "R G B",
        "help": "The mean that the {role} subtracts from pixels in 0..1.  [default: timm's, or ImageNet's]",
    },
    "std": {
        "type": float,
        "nargs": 3,
        "metavar": "R G B",
        "help": "The standard deviation by which the {role} divides after that.  [default: timm's, or ImageNet's]",
    },
    "size": {
        "type": click.IntRange(16),
        "help": "The side of the {role}'s square input, in pixels.  [default: the one in its file, else that of the "
        "images]",
    },
}


class Renamed(click.Option):
    """An option whose former name still works, also in files and in the environment, but is not shown in the help."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """The help record with the current name only."""
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
        role: the name of the classifier in the verb, "classifier" or "teacher".
        former: an earlier name of it.
    """

    def decorate(function: Callable[..., frame.Result]) -> Callable[..., frame.Result]:
        for name, settings in reversed(_OPTIONS.items()):
            names = [f"--{each}-{name}" for each in (role, former) if each]
            settings = settings | {"help": settings["help"].format(role=role)}
            function = click.option(*names, f"{role}_{name}", cls=Renamed, **settings)(function)
        return function

    return decorate
