"""`diffclean clean`."""

from __future__ import annotations

import logging
import shlex
import sys
from pathlib import Path
from typing import Any

import click

from diffclean.api.clean import clean, clean_config
from diffclean.cli import frame
from diffclean.cli.classifier import classifier_options
from diffclean.cli.clean_summary import summary
from diffclean.errors import Interrupted

log = logging.getLogger(__name__)

STAGES = ("teacher", "suspects", "teacher-anew", "variations", "student", "evaluation", "self-test", "outputs")


@frame.verb("clean", writes=True, door=clean)
@click.argument("data", type=click.Path(path_type=Path))
@click.option("-o", "--out", type=click.Path(path_type=Path), help="The folder of the job.  [default: DATA-clean]")
@click.option(
    "--test",
    type=click.Path(path_type=Path),
    metavar="DATA",
    help="A clean test set with the same classes: adds accuracies to the report.",
)
@click.option("-y", "--yes", is_flag=True, help="Begin without asking, also on a terminal.")
@click.option("--budget", metavar="TIME", help="How long all of it may take, such as 2h, 90m or 1h30m.")
@click.option(
    "--self-test/--no-self-test",
    default=None,
    help="Poison a part of the data with three triggers, and measure what the same settings do to them.  [default: "
    "where there is time for it]",
)
@click.option(
    "--max-asr",
    type=float,
    metavar="PERCENT",
    help="Gate: exit with code 4 where an attack success rate (of --poison, or in the self-test) is higher.",
)
@click.option(
    "--max-loss",
    type=float,
    metavar="POINTS",
    help="Gate: exit with code 4 where the student's clean accuracy is lower than the teacher's by more.",
)
@click.option(
    "--poison",
    type=click.Path(path_type=Path),
    metavar="MANIFEST",
    help="The poison.json of DATA, where you poisoned them yourself: adds attack success rates. Needs --test.",
)
@click.option(
    "--cleaned",
    type=click.Choice(["originals", "variations", "none"]),
    help="What the cleaned data set holds: the images that are kept, or their variations.",
)
@click.option(
    "--from",
    "from_step",
    type=click.Choice(STAGES),
    help="Do this stage and all later ones again.",
)
@click.option(
    "--teacher",
    type=click.Path(path_type=Path),
    help="A classifier that was trained on DATA as they are, in any of the forms that `distill` takes.  [default: one "
    "is trained]",
)
@classifier_options("teacher")
@click.option("--arch", help="Of teacher and student, as in `train`; auto: by the size and number of the images.")
@click.option(
    "--size",
    type=click.IntRange(16),
    help="Side in px that classifiers see.  [default: by the images and the machine]",
)
@click.option("--epochs", type=click.IntRange(1), help="Of each training.  [default: by the number of images]")
@click.option("--augment/--no-augment", help="Random crops and flips; off where a mirrored image means something else.")
@click.option("--engine", help="What makes variations, as in `variate`.")
@click.option("--strength", type=float, help="Of the variations, as in `variate`.  [default: the engine's]")
@click.option("--variations", type=click.IntRange(1), help="Of each image.  [default: by their number]")
@click.option("--detector", metavar="NAME", help="How poisoned images are looked for, as in `suspects`.")
@click.option("--price-per-hour", type=float, metavar="PRICE", help="Of this machine: the report then tells the cost.")
@click.option("--currency", metavar="NAME", help="Of that price.")
@click.option("--seed", type=click.IntRange(0), help="Of everything that is random.")
@click.option("--device", help="cpu, cuda, cuda:1.  [default: CUDA where it works, else the CPU]")
def command(run: frame.Run, yes: bool, **options: Any) -> frame.Result:
    """Do the whole job on DATA, a suspect training set with one folder of images for each class, or in another format.

    A teacher is trained on the data as they are, poisoned images are looked for, a teacher is trained anew without
    them, every image is regenerated, and a student is distilled on what is kept. OUT then holds the student, the list
    of suspects, a cleaned data set and report.html, which says what was found and what was not tested.

    It looks at the data first and says what it will do and how long that takes; on a terminal it asks once. --dry-run
    ends there. A job that was stopped goes on when the same command is typed again, and does only what is left or has
    changed. Settings that are not given are chosen by the data; what is given is never changed to keep to a budget.
    """
    from diffclean.workflow.clean import clean as work
    from diffclean.workflow.prepare import prepare
    from diffclean.workflow.steps import Hands
    from diffclean.workflow.told_first import told

    config = clean_config(**options)
    with run.stopping() as stop:
        hands = Hands(run.progress, stop)
        prepared = prepare(config, hands)
        lines = told(prepared)
        if run.dry_run:
            return frame.Result(prepared, [*lines, "Nothing was written."])
        for line in lines:
            log.info("%s", line)
        if not yes and not prepared.goes_on:
            _ask(run)
        done = work(prepared, hands, shlex.join(["diffclean", *sys.argv[1:]]))
    return frame.Result(done, summary(done), done.exit_code)


def _ask(run: frame.Run) -> None:
    """Ask once, where there is somebody to ask.

    Raises:
        Interrupted: the answer is no.
    """
    somebody_is_there = not run.json and sys.stdin.isatty() and sys.stderr.isatty()
    if somebody_is_there and not click.confirm("Begin?", default=True, err=True):
        raise Interrupted("Nothing was begun.", "Add --yes to begin without a question.")
