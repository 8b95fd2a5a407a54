"""`diffclean demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from diffclean.cli import frame


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
    """Tell the whole story on this machine: draw, poison, train, vary, distil, measure.

    Needs no data, no GPU and no network, and some minutes on two cores. It ends in a table and a page of pictures
    before and after, and prints what it measured, whatever that is; it fails only where the attack did not fire on the
    teacher. A demo that was stopped goes on when the same command is typed again.
    """
    from diffclean.workflow.demo import TABLE_HEAD, DemoConfig, demo, table

    with run.stopping() as stop:
        result = demo(DemoConfig(**options), run.progress, stop)
    rows = [list(TABLE_HEAD), *table(result)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(TABLE_HEAD))]
    lines = [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]
    left, kept = result.run.trigger_survival, result.run.label_preservation
    assert left is not None
    assert kept is not None
    lines += [
        f"Trigger survival {100 * left.survival:.1f} %, label preservation {kept.preservation:.3f}, "
        f"DER {result.student.defense_effectiveness:.3f}.",
        f"Pictures before and after: {result.page}",
    ]
    return frame.Result(result, lines)
