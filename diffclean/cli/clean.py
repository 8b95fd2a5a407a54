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
from diffclean.training.loop_config import FLIPS

log = logging.getLogger(__name__)

STAGES = ("teacher", "suspects", "teacher-anew", "variations", "student", "evaluation", "self-test", "outputs")


@frame.verb("clean", writes=True, door=clean)
@click.argument("data", type=click.Path(path_type=Path))
@click.option("-o", "--out", type=click.Path(path_type=Path), help="The folder of the job.  [default: DATA-clean]")
@click.option(
    "--test",
    type=click.Path(path_type=Path),
    metavar="DATA",
    help="A clean test set with the same classes. The report then states the accuracies.",
)
@click.option("-y", "--yes", is_flag=True, help="Begin without asking, even on a terminal.")
@click.option("--budget", metavar="TIME", help="How long the whole job may take, such as 2h, 90m or 1h30m.")
@click.option(
    "--self-test/--no-self-test",
    default=None,
    help="Poison a part of the data with three triggers, and measure how the same settings affect them.  [default: "
    "if there is time for it]",
)
@click.option(
    "--max-asr",
    type=float,
    metavar="PERCENT",
    help="A gate: exit with code 4 if an attack success rate (of --poison, or in the self-test) is higher than this.",
)
@click.option(
    "--max-loss",
    type=float,
    metavar="POINTS",
    help="A gate: exit with code 4 if the student's clean accuracy is more than this below the teacher's.",
)
@click.option(
    "--poison",
    type=click.Path(path_type=Path),
    metavar="MANIFEST",
    help="The poison.json of DATA, if you poisoned it yourself. The report then states attack success rates. "
    "Needs --test.",
)
@click.option(
    "--cleaned",
    type=click.Choice(["originals", "variations", "none"]),
    help="What the cleaned data set holds: the images that are kept (originals) or their variations.",
)
@click.option(
    "--from",
    "from_step",
    type=click.Choice(STAGES),
    help="Repeat this stage and all later ones.",
)
@click.option(
    "--teacher",
    type=click.Path(path_type=Path),
    help="A classifier that was trained on DATA as it is, in any of the forms that `distill` takes.  [default: one is "
    "trained]",
)
@classifier_options("teacher")
@click.option(
    "--arch",
    help="The architecture of teacher and student, as in `train`; auto chooses it by the size and number of images.",
)
@click.option(
    "--size",
    type=click.IntRange(16),
    help="The side in px to which images are resized for the classifiers.  [default: depends on the images and "
    "the machine]",
)
@click.option(
    "--epochs", type=click.IntRange(1), help="The epochs of each training.  [default: depends on the number of images]"
)
@click.option(
    "--augment/--no-augment",
    help="Train with random crops and flips.",
)
@click.option(
    "--flip",
    type=click.Choice(FLIPS),
    help="How training mirrors images, as in `train`; none where a mirrored image means something else.  [default: as "
    "suits the architecture, or none if a first look shows that classes become something else in the mirror]",
)
@click.option("--engine", help="The engine that makes variations, as in `variate`.")
@click.option(
    "--strength",
    type=float,
    help="How far a variation may differ from its source, as in `variate`.  [default: the engine's]",
)
@click.option(
    "--variations", type=click.IntRange(1), help="Variations of each image.  [default: depends on the number of images]"
)
@click.option("--detector", metavar="NAME", help="The detector that looks for poisoned images, as in `suspects`.")
@click.option(
    "--second-pass/--no-second-pass",
    default=None,
    help="Compare the teacher with the one that is trained without the suspects, to find suspects that the detector "
    "missed. Each of at most two passes that finds some costs one more training.  [default: if there is time for it]",
)
@click.option(
    "--price-per-hour",
    type=float,
    metavar="PRICE",
    help="The price of this machine per hour. The report then states the cost.",
)
@click.option("--currency", metavar="NAME", help="The currency of --price-per-hour.")
@click.option("--seed", type=click.IntRange(0), help="The seed of everything that is random.")
@click.option(
    "--device",
    help="The device that classifiers and detectors compute on: cpu, cuda, or one GPU such as cuda:1. The engine picks "
    "its own, as in `variate`.  [default: CUDA where it works, else the CPU]",
)
def command(run: frame.Run, yes: bool, **options: Any) -> frame.Result:
    """Do the whole job on DATA, a suspect training set with one folder of images for each class, or in another format.

    The command trains a teacher on the data as it is, looks for poisoned images, trains a new teacher without them,
    regenerates every image, and distils a student from the images that are kept. OUT then holds the student, the list
    of suspects, a cleaned data set and report.html, which says what was found and what was not tested.

    The command first looks at the data, says what it will do and how long that takes, and asks once if it runs on a
    terminal. --dry-run ends there. Type the same command again to continue a job that was stopped: only the steps that
    are left or whose data or settings have changed are done. The data decides the settings that you do not give. A
    setting that you give is never changed to keep to a budget.
    """
    from diffclean.workflow.clean import clean as work
    from diffclean.workflow.prepare import prepare
    from diffclean.workflow.steps import Hands
    from diffclean.workflow.told_first import told

    config = clean_config(**options)
    with run.stopping() as stop:
        hands = Hands(run.progress, stop)
        prepared = prepare(config, hands, dry_run=run.dry_run)
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
    """Ask once whether to begin, if a person is there to answer.

    Raises:
        Interrupted: the answer is no.
    """
    somebody_is_there = not run.json and sys.stdin.isatty() and sys.stderr.isatty()
    if somebody_is_there and not click.confirm("Begin?", default=True, err=True):
        raise Interrupted("Nothing was begun.", "Add --yes to begin without a question.")
