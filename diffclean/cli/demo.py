"""`diffclean demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from diffclean.cli import frame
from diffclean.cli.clean_summary import summary


@frame.verb("demo")
@click.option("-o", "--out", type=click.Path(path_type=Path), default="diffclean-demo", help="The folder of the demo.")
@click.option("--train-images", type=click.IntRange(10), default=100, help="Training images per class.")
@click.option("--test-images", type=click.IntRange(5), default=40, help="Test images per class.")
@click.option("--size", type=click.IntRange(24, 128), default=32, help="The side of the pictures in px.")
@click.option("--attack", default="badnets", help="The attack, as in `poison`.")
@click.option("--rate", type=click.FloatRange(0, 1, min_open=True, max_open=True), default=0.1, help="The poison rate.")
@click.option("--target", default="limit-80", help="The target class.")
@click.option("--arch", default="resnet8-cifar", help="The architecture of teacher and student, as in `train`.")
@click.option("--epochs", type=click.IntRange(1), default=12, help="The epochs of each training.")
@click.option("--engine", default="micro", help="The engine, as in `variate`.")
@click.option("--seed", type=click.IntRange(0), default=1, help="The seed of everything that is random.")
def command(run: frame.Run, **options: Any) -> frame.Result:
    """Show the whole job on this machine: draw road signs, poison them, and `clean` them.

    The demo needs no data, no GPU and no network, and takes some minutes on two cores. It ends with the report that
    `clean` writes, with pictures before and after, and prints what it measured, whether or not the defence worked. Type
    the same command again to continue a demo that was stopped.
    """
    from diffclean.workflow.demo import DemoConfig, demo

    with run.stopping() as stop:
        done = demo(DemoConfig(**options), run.progress, stop)
    said = "One seed on drawn pictures: a demonstration, not evidence. For that, see docs/evidence.md."
    return frame.Result(done, [*summary(done), said], done.exit_code)
