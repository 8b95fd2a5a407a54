"""Measure a cell of `detection.py`: look for poison, compare the list with the truth, train without what is listed."""

from __future__ import annotations

import hashlib
import json
import math
import re
import time
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import torch
from detection_cell import BENIGN, Cell
from detection_training import Listed, Training, of_student, of_teachers, poisoned_set, teacher_of, variations
from record import Pieces

import diffclean.detection
from diffclean.attacks.manifest import read_poison_manifest
from diffclean.data.suspects import SuspectList
from diffclean.detection.find import find_suspects
from diffclean.detection.registry import get
from diffclean.evaluation.listed import measure_list
from diffclean.variation.settings import Settings

STRENGTH, VARIATIONS = 0.4, 4
"""Of the variations that a detector is given, as its own advice says."""


_ROOM = Path(diffclean.detection.__file__).parent
_IMPORTED = re.compile(r"from diffclean\.detection\.(\w+) import")


@cache
def code(detector: str) -> str:
    """A digest of the files of `diffclean/detection` that make a detector: figures of two states must not meet.

    It is of the files as they are when it is first asked for, so ask before the first cell.
    """
    texts: dict[str, str] = {}
    names = {"find", type(get(detector)).__module__.rpartition(".")[2]}
    while names:
        texts |= {name: path.read_text() for name in names if (path := _ROOM / f"{name}.py").exists()}
        used = {found for name in names & texts.keys() for found in _IMPORTED.findall(texts[name])}
        names = used - texts.keys() - {"registry"}
    return hashlib.sha256(repr(sorted(texts.items())).encode()).hexdigest()[:12]


def measured(cell: Cell, training: Training, work: Path, teachers: bool, students: bool) -> dict[str, Any]:
    """All figures of a cell; what was measured before is read.

    Args:
        cell: which.
        training: how classifiers are made.
        work: where outcomes are kept.
        teachers: train teachers on the suspect data, without the listed images, and on clean data.
        students: distil a student of the second of them as well.
    """
    pieces = Pieces(work / "cells" / f"{cell.name}.json", {"code": code(cell.detector)})
    figures: dict[str, Any] = dict(pieces.get(cell.name, lambda: found(cell, training, work)))
    figures |= {"half": cell.half, "labels": cell.labels}
    listed = Listed(list_of(cell, work), figures["list"]) if figures["listed"] else None
    settings = {"training": asdict(training), "list": figures["list"]}
    trained = Pieces(work / "cells" / f"{cell.name}-{training.arch_for(cell.data)}.json", settings)
    if teachers or students:
        figures["teachers"] = trained.get("teachers", lambda: of_teachers(cell, training, listed))
    if students:
        figures["student"] = trained.get("student", lambda: of_student(cell, training, listed))
    return figures


def as_kept(cell: Cell, training: Training, work: Path) -> dict[str, Any] | None:
    """The figures of a cell that was measured before, on whichever state of the code; None if it was not."""
    path = work / "cells" / f"{cell.name}.json"
    if not path.exists():
        return None
    figures = {**json.loads(path.read_text())["made"][cell.name], "half": cell.half, "labels": cell.labels}
    trained = work / "cells" / f"{cell.name}-{training.arch_for(cell.data)}.json"
    if trained.exists():
        kept = json.loads(trained.read_text())
        if kept["settings"] == {"training": asdict(training), "list": figures["list"]}:
            figures |= kept["made"]
    return figures


def found(cell: Cell, training: Training, work: Path) -> dict[str, Any]:
    """Look for the poison, and compare what is found with the truth."""
    poisoned, given = poisoned_set(cell, training), evidence(cell, training)
    wall, cpu = time.monotonic(), time.process_time()
    suspects = find_suspects(poisoned, cell.detector, seed=cell.seed, **given)
    seconds = {"wall_s": time.monotonic() - wall, "cpu_s": time.process_time() - cpu}
    suspects.write(list_of(cell, work))
    told: dict[str, Any] = {"data": cell.data.name, "attack": cell.attack, "seed": cell.seed}
    told |= {"rate": cell.rate, "real_rate": cell.real_rate, "target": cell.target, "detector": cell.detector}
    told |= compared(suspects, None if cell.attack == BENIGN else poisoned)
    told |= {name: round(value, 1) for name, value in seconds.items()}
    told["classes"] = {judged.name: judged.suspects for judged in suspects.classes if judged.suspects}
    told["separations"] = {judged.name: [round(judged.separation, 3), judged.limit] for judged in suspects.classes}
    told |= {"threads": torch.get_num_threads(), "code": code(cell.detector)}
    return told | {"list": hashlib.sha256("\n".join(sorted(suspects.keys)).encode()).hexdigest()[:12]}


def evidence(cell: Cell, training: Training) -> dict[str, Any]:
    """What a detector needs beside the images; the time for it is not the detector's."""
    detector = get(cell.detector)
    given: dict[str, Any] = {}
    if detector.needs_teacher:
        given["teacher"] = teacher_of(cell, training)
    if detector.needs_variations:
        settings = Settings(engine=training.engine, strength=STRENGTH, variations=VARIATIONS)
        given["variations"] = variations(cell, training, settings)
    return given


def compared(suspects: SuspectList, poisoned: Path | None) -> dict[str, Any]:
    """How many images are listed, and how many of them rightly.

    Args:
        suspects: the list.
        poisoned: the data set with its manifest; None: the data are clean.
    """
    count = len(suspects.keys)
    if poisoned is None:
        images = len(suspects.images)
        told: dict[str, Any] = {"images": images, "listed": count, "poisoned": 0, "covers": 0, "covers_listed": 0}
        return told | {"tpr": None, "fpr": count / images, "auroc": None}
    manifest = read_poison_manifest(poisoned)
    figures = measure_list(suspects, manifest)
    told = {"images": len(manifest.images), "listed": count, "poisoned": figures.recall.count}
    told |= {"covers": figures.covers.count, "covers_listed": figures.covers.hits}
    told |= {"tpr": figures.recall.value, "fpr": figures.false_positive_rate.value}
    return told | {"auroc": None if math.isnan(figures.auroc) else figures.auroc}


def list_of(cell: Cell, work: Path) -> Path:
    """Where the list of suspects is written."""
    return work / "lists" / f"{cell.name}.json"
