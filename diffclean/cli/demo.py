"""`diffclean demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from diffclean.cli import frame
from diffclean.cli.clean_summary import summary


@frame.verb("demo")
@click.option("-o", "--out", type=click.Path(path_type=Path), default="diffclean-demo", help="The folder of the demo.")
@click.option("--train-images", type=click.IntRange(10), default=100, help="Drawn for training, a class.")
@click.option("--test-images", type=click.IntRange(5), default=40, help="Drawn for measuring, a class.")
@click.option("--size", type=click.IntRange(24, 128), default=48, help="Of the pictures, in px.")
@click.option("--attack", default="badnets", help="As in `poison`.")
@click.option("--rate", type=click.FloatRange(0, 1, min_open=True, max_open=True), default=0.1, help="Poison rate.")
@click.option("--target", default="limit-80", help="The class that the trigger stands for.")
@click.option("--arch", default="resnet8-cifar", help="Of teacher and student, as in `train`.")
@click.option("--epochs", type=click.IntRange(1), default=12, help="Of both trainings.")
@click.option("--engine", default="micro", help="As in `variate`.")
@click.option("--seed", type=click.IntRange(0), default=1, help="Of everything that is random.")
def command(run: frame.Run, **options: Any) -> frame.Result:
    """Show the whole job on this machine: draw road signs, poison them, and `clean` them.

    Needs no data, no GPU and no network, and some minutes on two cores. It ends in the report that `clean` writes, with
    pictures before and after, and prints what it measured, whatever that is. A demo that was stopped goes on when the
    same command is typed again.
    """
    from diffclean.workflow.demo import DemoConfig, demo

    with run.stopping() as stop:
        done = demo(DemoConfig(**options), run.progress, stop)
    said = "One seed on drawn pictures: a demonstration, not evidence. For that, see docs/evidence.md."
    return frame.Result(done, [*summary(done), said], done.exit_code)
