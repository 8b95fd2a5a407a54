"""`diffclean suspects`."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import click

from diffclean.api.suspects import check_new, find_suspects, request
from diffclean.cli import frame
from diffclean.cli.classifier import classifier_options
from diffclean.cli.failures import failures
from diffclean.cli.findings import compared, findings, next_commands
from diffclean.errors import ExitCode, UsageError

log = logging.getLogger(__name__)


@frame.verb("suspects", writes=True, door=find_suspects)
@click.argument("source", required=False, metavar="[DATA]", type=click.Path(path_type=Path))
@click.option(
    "--detector",
    metavar="NAME",
    help="The detector that looks for poisoned images; docs/detection.md describes the detectors.  [default: isolate; "
    "logit-difference with --retrained; variation-drop if a teacher is given and DATA is not]",
)
@click.option(
    "--teacher",
    type=click.Path(path_type=Path),
    help="A classifier that was trained on DATA, in any of the forms that `distill` takes; some detectors need one.",
)
@click.option(
    "--variations",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="The variations that `variate` made of DATA, preferably with --strength 0.4 --variations 4; some detectors "
    "need them.  [default: the only *-variations folder here, if the detector needs one]",
)
@click.option(
    "--retrained",
    type=click.Path(path_type=Path),
    metavar="MODEL",
    help="A classifier that was trained like the teacher, but without the images on --list. The detector "
    "logit-difference compares both and finds images that are not on the list yet.",
)
@click.option(
    "--list",
    "first_list",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="An earlier list of suspects of DATA; its images are also on the new list.",
)
@click.option("--data", type=click.Path(path_type=Path), hidden=True)  # what --variations was called before
@click.option("--originals", type=click.Path(path_type=Path), hidden=True)  # what DATA was called before
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    help="The file of the list, which --without of `train` and `distill` reads; it is a CSV file if its name ends in "
    ".csv, else JSON.",
)
@click.option("--overwrite", is_flag=True, help="Replace OUT if it exists.")
@click.option(
    "--poison",
    type=click.Path(path_type=Path),
    metavar="MANIFEST",
    help="The poison manifest (poison.json) of DATA, if you poisoned it yourself; adds precision, recall and false "
    "positives.",
)
@click.option(
    "--size",
    type=click.IntRange(16),
    help="Resize the images to squares of this side before they are examined, in pixels.  [default: the teacher's "
    "size, else the size of the images up to 128]",
)
@click.option("--seed", type=click.IntRange(0), help="The seed of everything that is random.")
@classifier_options("teacher")
@click.option(
    "--device",
    help="The device to compute on: cpu, cuda, or one GPU such as cuda:1.  [default: CUDA where it works, else the "
    "CPU]",
)
def command(run: frame.Run, out: Path, overwrite: bool, poison: Path | None, **options: Any) -> frame.Result:
    """Find the poisoned images of DATA, a suspect training set that has one folder of images for each class.

    The images that a detector takes for poisoned are written to a list; `train --without` and `distill --without` leave
    out the images on it. No clean data are needed. If DATA is not given, it is the data set that the variations were
    made from. An empty list does not prove that the data are clean: docs/detection.md says what cannot be found.
    """
    source = _renamed(options, "originals", "source", "DATA")
    variations = _renamed(options, "data", "variations", "--variations")
    if options["originals"] is not None and options["teacher"] is not None:
        options["detector"] = options["detector"] or "variation-drop"  # the only detector when --originals was in use
    options = {name: value for name, value in options.items() if name not in ("originals", "data", "source")}
    if run.dry_run:
        return _planned(source, variations, out, overwrite, poison, options)
    given = {"variations": variations, "out": out, "overwrite": overwrite, "poison": poison}
    with run.stopping() as stop:
        found = find_suspects(source, **options | given, progress=run.progress, stop=stop)
    assert found.listed is not None
    lines = [*findings(found.listed), f"The list is in {out}."]
    if found.against_manifest is not None:
        lines += compared(found.against_manifest)
    lines += next_commands(found.listed, out, options["teacher"], variations, options["retrained"])
    lines += failures(found.failed)
    return frame.Result(found, lines, ExitCode.SOME_FAILED if found.failed else ExitCode.DONE)


def _renamed(options: dict[str, Any], old: str, new: str, shown: str) -> Path | None:
    before: Path | None = options[old]
    now: Path | None = options[new]
    if before is None:
        return now
    if now is not None:
        raise UsageError(f"--{old} is the former name of {shown}; both were given.", f"Leave out --{old}.")
    log.warning("--%s is now called %s.", old, shown)
    return before


def _planned(
    source: Path | None,
    variations: Path | None,
    out: Path,
    overwrite: bool,
    poison: Path | None,
    options: dict[str, Any],
) -> frame.Result:
    """The result of a dry run, which opens everything that the command line names so that mistakes show up."""
    from diffclean.attacks.manifest import read_poison_manifest
    from diffclean.classifiers.networks import pick_device
    from diffclean.data.registry import open_source
    from diffclean.datasets.variations import classes_of
    from diffclean.detection.find import checked
    from diffclean.evaluation.evaluate import opened
    from diffclean.training.relabel import open_second

    about = {name: value for name, value in options.items() if name.startswith("teacher_")}
    given = options["detector"], options["teacher"], variations, about, options["retrained"], options["first_list"]
    asked = request(source, *given)
    _, folder = checked(asked.data, asked.detector, asked.teacher, asked.variations, asked.retrained, asked.first)
    check_new(out, overwrite)
    if poison is not None:
        read_poison_manifest(poison)
    count = len(open_source(folder).items())
    if asked.teacher is not None:
        opened(asked.teacher, folder, pick_device("cpu"))
    if asked.retrained is not None:
        open_second(asked.retrained, "retrained", classes_of(folder), folder, pick_device("cpu"))
    if asked.variations is not None:
        classes_of(asked.variations)
    facts = {"out": out, "detector": asked.detector, "source": folder, "variations": asked.variations, "images": count}
    line = f"{count} images in {folder} would be judged by the detector {asked.detector}, and listed in {out}."
    return frame.Result(facts, [line, "Nothing was written."])
