"""What comes out of `clean` beside the report: the student in three forms, and the cleaned data set."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from functools import partial
from pathlib import Path

from diffclean.data.hashes import sha256_of
from diffclean.datasets.samples import digest_of
from diffclean.report.card import CARD_FILE
from diffclean.workflow.clean_config import OUTPUTS
from diffclean.workflow.cleaned import write_cleaned
from diffclean.workflow.runner import Runner

STUDENT = ("student.pt", "student.safetensors", "student.onnx")


def write_student(student: Path, out: Path, runner: Runner) -> None:
    """Write a classifier into a folder as `.pt`, `.safetensors` and `.onnx`.

    Args:
        student: its file.
        out: the folder.
        runner: does it, where it is not done.

    Raises:
        DiffcleanError: torch cannot export it, or it cannot be written.
    """
    from diffclean.classifiers import checkpoints
    from diffclean.export.classifier import onnx_from_classifier

    of = {"student": sha256_of(student)}

    def write(place: Path) -> None:
        found = checkpoints.load(student)
        if place.suffix == ".onnx":
            onnx_from_classifier(found.model, place, found.class_to_idx, found.size)
        else:
            about = found.arch, found.class_to_idx, found.size, found.metrics, found.training
            checkpoints.save(place, found.model, *about)

    for name in STUDENT:
        runner.do(OUTPUTS, partial(write, out / name), out / name, of)


def write_kept(
    kind: str,
    data: Path,
    digest: str,
    out: Path,
    variations: Path,
    left_out: Collection[str],
    runner: Runner,
) -> Path | None:
    """Write the cleaned data set.

    Args:
        kind: "originals", "variations", or "none".
        data: the suspect data set.
        digest: a sha256 of it.
        out: the folder of the job; the data set is `cleaned` in it, and `cleaned.csv` lists it.
        variations: what `variate` made of the data.
        left_out: keys of the suspects, and of what cannot be read.
        runner: does it, where it is not done.

    Returns:
        Its folder; None: there is none.
    """
    place, listing = out / "cleaned", out / "cleaned.csv"
    if kind == "none":
        return None
    taken = variations if kind == "variations" else None
    of = {"data": digest, "kind": kind, "left out": digest_of((key,) for key in sorted(left_out))}
    if kind == "variations":
        of["variations"] = sha256_of(variations / "manifest.parquet")
    if not place.is_dir():
        listing.unlink(missing_ok=True)
    runner.do(OUTPUTS, lambda: write_cleaned(data, place, listing, left_out, taken, runner.hands), listing, of)
    return place


def remove_student(out: Path) -> None:
    """Remove the student of an earlier run, where there is none any more."""
    for name in STUDENT:
        (out / name).unlink(missing_ok=True)


def remove_cleaned(out: Path) -> None:
    """Remove a cleaned data set that was not asked for any more."""
    if (out / "cleaned.csv").is_file():  # ours
        shutil.rmtree(out / "cleaned", ignore_errors=True)
        (out / "cleaned.csv").unlink()
        (out / CARD_FILE).unlink(missing_ok=True)
