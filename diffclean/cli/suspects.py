"""`diffclean suspects`."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from diffclean.cli import frame
from diffclean.cli.failures import failures
from diffclean.cli.findings import compared, findings, next_commands
from diffclean.cli.teacher import teacher_config, teacher_options
from diffclean.errors import DiffcleanError, ExitCode, UsageError

if TYPE_CHECKING:
    from diffclean.classifiers.teacher_config import TeacherConfig

log = logging.getLogger(__name__)


@frame.verb("suspects", writes=True)
@click.argument("source", required=False, metavar="[DATA]", type=click.Path(path_type=Path))
@click.option(
    "--detector",
    metavar="NAME",
    help="How poisoned images are looked for; docs/detection.md describes the detectors.  [default: isolate; "
    "variation-drop where a teacher is named and DATA is not]",
)
@click.option(
    "--teacher",
    type=click.Path(path_type=Path),
    help="A classifier that was trained on DATA as they are, in any of the forms that `distill` takes; some detectors "
    "need one.",
)
@click.option(
    "--variations",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="What `variate` made of DATA, best with --strength 0.4 --variations 4; some detectors need it.  [default: the "
    "one *-variations folder here, where the detector needs one]",
)
@click.option("--data", type=click.Path(path_type=Path), hidden=True)  # what --variations was called before
@click.option("--originals", type=click.Path(path_type=Path), hidden=True)  # what DATA was called before
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    default="suspects.json",
    help="The list, for --without of `train` and `distill`; a name that ends in .csv makes it a CSV file.",
)
@click.option("--overwrite", is_flag=True, help="Replace OUT where it exists.")
@click.option(
    "--poison",
    type=click.Path(path_type=Path),
    metavar="MANIFEST",
    help="The poison.json of DATA, where you poisoned them yourself: adds precision, recall and false positives.",
)
@click.option(
    "--size",
    type=click.IntRange(16),
    help="Look at the images resized to this side in px.  [default: the teacher's size, else as they are up to 64]",
)
@click.option("--seed", type=int, default=1, help="The seed of everything that is random.")
@teacher_options
@click.option("--device", help="cpu, cuda, cuda:1.  [default: CUDA where it works, else the CPU]")
def command(
    run: frame.Run, out: Path, overwrite: bool, poison: Path | None, size: int | None, seed: int, **options: Any
) -> frame.Result:
    """Find the poisoned images of DATA, a suspect training set with one folder of images a class.

    The images that a detector thinks are poisoned are written to a list, which `train --without` and `distill
    --without` leave out. No clean data are needed. Where DATA is not named, it is what the variations were made from.
    That nothing is listed is no proof that the data are clean: docs/detection.md says what cannot be found.
    """
    from diffclean.attacks.manifest import read_manifest
    from diffclean.detection.find import checked, find_suspects

    device = options.pop("device")
    source, detector, teacher, variations = _request(options)
    _, folder = checked(source, detector, teacher, variations)
    if out.exists() and not overwrite:
        raise DiffcleanError(f"{out} exists.", "Add --overwrite to replace it, or name another -o.")
    manifest = read_manifest(poison) if poison else None
    if run.dry_run:
        return _planned(folder, detector, teacher, variations, out)
    with run.stopping() as stop:
        found = find_suspects(source, detector, teacher, variations, size, device, seed, run.progress, stop)
    found.write(out)
    told: dict[str, Any] = {"out": out, "detector": detector, "source": found.source, "images": len(found.images)}
    told |= {"suspects": len(found.keys), "classes": found.classes, "failed": found.missing}
    lines = [*findings(found), f"The list is in {out}."]
    if manifest is not None:
        from diffclean.evaluation.listed import measure_list

        told["against_manifest"] = figures = measure_list(found, manifest)
        lines += compared(figures)
    lines += next_commands(found, out, teacher.path if teacher else None, variations)
    lines += failures(found.missing)
    return frame.Result(told, lines, ExitCode.SOME_FAILED if found.missing else ExitCode.DONE)


def _request(options: dict[str, Any]) -> tuple[Path | None, str, TeacherConfig | None, Path | None]:
    """DATA, the detector, the teacher and the variations, under their present names or those that they had before."""
    from diffclean.datasets.variations import find_variations
    from diffclean.detection.find import DEFAULT_DETECTOR
    from diffclean.detection.registry import get

    source = _renamed(options, "originals", "source", "DATA")
    variations = _renamed(options, "data", "variations", "--variations")
    teacher = _teacher(options)
    only_a_teacher = teacher is not None and options["source"] is None
    detector = options["detector"] or ("variation-drop" if only_a_teacher else DEFAULT_DETECTOR)
    if variations is None and get(detector).needs_variations:
        variations = find_variations(Path(), "--variations")
    return source, detector, teacher, variations


def _renamed(options: dict[str, Any], old: str, new: str, shown: str) -> Path | None:
    before: Path | None = options[old]
    now: Path | None = options[new]
    if before is None:
        return now
    if now is not None:
        raise UsageError(f"--{old} is the former name of {shown}; both were given.", f"Leave out --{old}.")
    log.warning("--%s is now called %s.", old, shown)
    return before


def _teacher(options: dict[str, Any]) -> TeacherConfig | None:
    path = options["teacher"]
    about = [name for name, value in options.items() if name.startswith("teacher_") and value is not None]
    if path is None and about:
        raise UsageError(f"--{about[0].replace('_', '-')} was given, and no teacher.", "Add: --teacher FILE")
    return teacher_config(path, options) if path is not None else None


def _planned(
    folder: Path, detector: str, teacher: TeacherConfig | None, variations: Path | None, out: Path
) -> frame.Result:
    """What a dry run says, after it has opened everything that it names."""
    from diffclean.classifiers.networks import pick_device
    from diffclean.data.registry import open_source
    from diffclean.datasets.variations import classes_of
    from diffclean.evaluation.evaluate import opened

    count = len(open_source(folder).items())
    if teacher is not None:
        opened(teacher, folder, pick_device("cpu"))
    if variations is not None:
        classes_of(variations)
    told = {"out": out, "detector": detector, "source": folder, "variations": variations, "images": count}
    line = f"{count} images in {folder} would be judged by the detector {detector}, and listed in {out}."
    return frame.Result(told, [line, "Nothing was written."])
