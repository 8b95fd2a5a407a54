"""The options that tell of a classifier what its file does not: of the teacher, for `distill` and `evaluate`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from diffclean.cli import frame

TEACHER_OPTIONS = (
    click.option("--teacher-arch", metavar="ARCH", help="Of a state dict."),
    click.option(
        "--teacher-classes",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Its classes in the order of its logits: one a line, or JSON.  [default: the data's order]",
    ),
    click.option(
        "--teacher-mean",
        type=float,
        nargs=3,
        metavar="R G B",
        help="What it subtracts from pixels in 0..1.  [default: timm's, or ImageNet's]",
    ),
    click.option(
        "--teacher-std",
        type=float,
        nargs=3,
        metavar="R G B",
        help="What it divides by.  [default: timm's, or ImageNet's]",
    ),
    click.option(
        "--teacher-size", type=click.IntRange(16), help="Side of its input in px.  [default: its own, or the data's]"
    ),
)


def teacher_options(function: Callable[..., frame.Result]) -> Callable[..., frame.Result]:
    """Add them to a verb."""
    for option in reversed(TEACHER_OPTIONS):
        function = option(function)
    return function
