"""The --teacher options of `distill`, `suspects` and `evaluate`: what the file of a classifier does not say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from diffclean.cli import frame

TEACHER_OPTIONS = (
    click.option(
        "--teacher-arch", metavar="ARCH", help="The architecture of the teacher, if its file is a state dict."
    ),
    click.option(
        "--teacher-classes",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="A file that lists the teacher's classes in the order of its logits, one on each line or as JSON.  "
        "[default: the order of the data set]",
    ),
    click.option(
        "--teacher-mean",
        type=float,
        nargs=3,
        metavar="R G B",
        help="The mean that the teacher subtracts from pixels in 0..1.  [default: timm's, or ImageNet's]",
    ),
    click.option(
        "--teacher-std",
        type=float,
        nargs=3,
        metavar="R G B",
        help="The standard deviation by which the teacher divides after that.  [default: timm's, or ImageNet's]",
    ),
    click.option(
        "--teacher-size",
        type=click.IntRange(16),
        help="The side of the teacher's square input, in pixels.  [default: the one in its file, else that of the "
        "images]",
    ),
)


def teacher_options(function: Callable[..., frame.Result]) -> Callable[..., frame.Result]:
    """Add the --teacher options to a verb."""
    for option in reversed(TEACHER_OPTIONS):
        function = option(function)
    return function
