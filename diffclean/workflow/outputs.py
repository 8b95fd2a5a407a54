"""Writes the results of `clean` other than the report: the student in three forms, and the cleaned data set."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Collection
from functools import partial
from pathlib import Path

from diffclean.data.hashes import sha256_of
from diffclean.data.keys import key_from_path
from diffclean.datasets.samples import digest_of
from diffclean.report.card import CARD_FILE
from diffclean.workflow.clean_config import OUTPUTS
from diffclean.workflow.cleaned import write_cleaned
from diffclean.workflow.runner import Runner

STUDENT = ("student.pt", "student.safetensors", "student.onnx")


def write_student(student: Path, out: Path, runner: Runner) -> None:
    """Write a classifier into a folder as `.pt`, `.safetensors` and `.onnx`.

    Args:
        student: the file of the student.
        out: the folder.
        runner: does the step if it is not done yet.

    Raises:
        DiffcleanError: torch cannot export the student, or a file cannot be written.
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
        digest: a sha256 of the suspect data set.
        out: the folder of the job. The data set is its folder `cleaned`, and `cleaned.csv` lists the files.
        variations: the output of `variate` for the data.
        left_out: the keys of the suspects and of the images that cannot be read.
        runner: does the step if it is not done yet.

    Returns:
        The folder of the data set, or None if there is none.
    """
    place, listing = out / "cleaned", out / "cleaned.csv"
    if kind == "none":
        return None
    taken = variations if kind == "variations" else None
    of = {"data": digest, "kind": kind, "left out": digest_of((key,) for key in sorted(left_out))}
    if kind == "variations":
        of["variations"] = sha256_of(variations / "manifest.parquet")
    if not _is_whole(place, listing):
        listing.unlink(missing_ok=True)
    runner.do(OUTPUTS, lambda: write_cleaned(data, place, listing, left_out, taken, runner.hands), listing, of)
    return place


def _is_whole(place: Path, listing: Path) -> bool:
    """Whether the folder holds exactly the files that the listing names."""
    if not place.is_dir() or not listing.is_file():
        return False
    with listing.open(newline="", encoding="utf-8") as file:
        named = {row["file"] for row in csv.DictReader(file)}
    return named == {key_from_path(path.relative_to(place)) for path in place.rglob("*") if not path.is_dir()}


def remove_student(out: Path) -> None:
    """Remove the student of an earlier run, if this run has none."""
    for name in STUDENT:
        (out / name).unlink(missing_ok=True)


def remove_cleaned(out: Path) -> None:
    """Remove a cleaned data set of an earlier run that is no longer asked for."""
    if (out / "cleaned.csv").is_file():  # ours
        shutil.rmtree(out / "cleaned", ignore_errors=True)
        (out / "cleaned.csv").unlink()
        (out / CARD_FILE).unlink(missing_ok=True)
