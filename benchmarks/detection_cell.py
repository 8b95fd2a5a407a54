"""One cell of `detection.py`: poison a data set, look for the poison, train without it."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detection_data import DataSet, linked
from numpy.typing import NDArray
from record import Pieces
from robustness_data import variations_of

import diffclean.detection
from diffclean.attacks.base import Labels
from diffclean.attacks.manifest import MANIFEST_FILE, read_manifest
from diffclean.attacks.plan import training_plan
from diffclean.attacks.poison import write
from diffclean.attacks.record import PoisonManifest
from diffclean.attacks.registry import get as get_attack
from diffclean.classifiers.teacher_config import TeacherConfig
from diffclean.data.suspects import SuspectList
from diffclean.detection.find import find_suspects
from diffclean.detection.registry import get as get_detector
from diffclean.errors import UsageError
from diffclean.evaluation.evaluate import evaluate
from diffclean.evaluation.metrics import FIRED
from diffclean.training.distill import distill
from diffclean.training.distill_config import DistillConfig
from diffclean.training.loop_config import LoopConfig
from diffclean.training.train import train
from diffclean.training.train_config import TrainConfig
from diffclean.variation.settings import Settings

BENIGN = "benign"
CLEAN_LABEL_SHARE = 0.5
"""Of the target class, at most so much is poisoned where labels stay clean."""


@dataclass(frozen=True)
class Setting:
    """An attack of `diffclean poison` with its options.

    Attributes:
        attack: a name in `registry.ATTACKS`.
        labels: None: as the attack's paper.
        parameters: over its defaults.
        needs_model: whether it needs a classifier of clean images as its parameter `model`.
    """

    attack: str
    labels: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    needs_model: bool = False

    @property
    def is_clean_label(self) -> bool:
        """Whether poisoned images keep their label."""
        return (self.labels or get_attack(self.attack).labels) == Labels.CLEAN

    @property
    def is_all_to_all(self) -> bool:
        """Whether every class is a target class."""
        return (self.labels or get_attack(self.attack).labels) == Labels.ALL_TO_ALL

    def missing(self) -> str:
        """Why this version of diffclean cannot make it; empty where it can."""
        try:
            attack = get_attack(self.attack)
            if not self.needs_model:
                attack.resolve(self.parameters, 1)
        except UsageError as error:
            return error.message
        return ""


ATTACKS = {
    "badnets": Setting("badnets"),
    "badnets-all-to-all": Setting("badnets", labels="all-to-all"),
    "blended": Setting("blended"),
    "blended-picture": Setting("blended", parameters={"pattern": "picture"}),
    "lf": Setting("lf"),
    "sig": Setting("sig"),
    "sig-f2-delta40": Setting("sig", parameters={"f": 2, "delta": 40}),
    "bpp": Setting("bpp"),
    "wanet": Setting("wanet"),
    "adaptive-blend": Setting("adaptive-blend"),
    "color-shift": Setting("color-shift"),
    "object": Setting("object"),
    "two-scale": Setting("two-scale"),
    "label-consistent": Setting("label-consistent", needs_model=True),
}


@dataclass(frozen=True)
class Training:
    """How classifiers are made.

    Attributes:
        arch: of teacher and student.
        large_arch: the same for images of more than 64 px.
        side: larger images are made this small for them.
        epochs: of a teacher.
        student_epochs: of a student.
        engine: that makes variations.
    """

    arch: str
    large_arch: str
    side: int
    epochs: int
    student_epochs: int
    engine: str

    def arch_for(self, data: DataSet) -> str:
        """The classifier for images of that size."""
        return self.large_arch if data.longest_side > 64 else self.arch

    def size_for(self, data: DataSet) -> int | None:
        """The side at which it sees them; None: as they are."""
        return self.side if data.longest_side > self.side else None


@dataclass(frozen=True)
class Cell:
    """What is measured.

    Attributes:
        data: the clean data set.
        attack: a name in `ATTACKS`, or `BENIGN`.
        rate: the poison rate that was asked for; None for the benign run.
        seed: of the choice of images, the pattern, the detector and the classifiers.
        detector: a name in `detection.registry.DETECTORS`.
    """

    data: DataSet
    attack: str
    rate: float | None
    seed: int
    detector: str

    @property
    def half(self) -> str:
        """`chosen`: every setting was chosen on such cells; `reported`: none was."""
        return half_of(self.data.name, self.attack)

    @property
    def setting(self) -> Setting:
        """Of the attack; there is none for the benign run."""
        return ATTACKS[self.attack]

    @property
    def target(self) -> str | None:
        """The target class, where there is one."""
        if self.attack == BENIGN or self.setting.is_all_to_all:
            return None
        return self.data.target(self.seed)

    @property
    def real_rate(self) -> float | None:
        """The rate that is used: with clean labels, no more than half of the target class is poisoned."""
        if self.rate is None or not self.setting.is_clean_label:
            return self.rate
        sizes = self.data.sizes
        most = CLEAN_LABEL_SHARE * sizes[self.data.target(self.seed)] / sum(sizes.values())
        return min(self.rate, round(most, 6))

    @property
    def poisoning(self) -> str:
        """A name for the data that are judged."""
        return BENIGN if self.attack == BENIGN else f"{self.attack}-{self.real_rate:g}-{self.seed}"

    @property
    def name(self) -> str:
        """A name for the cell."""
        seed = f"-{self.seed}" if self.attack == BENIGN else ""
        return f"{self.data.name}-{self.poisoning}{seed}-{self.detector}"


SEEN = {("cifar10", "sig"), ("cifar10", "bpp"), ("cifar10", "blended-picture"), ("signs", "badnets")}
"""Pairs that the hash would report, but at which `isolate` was looked at while it was made: they count as chosen."""


def half_of(data: str, attack: str) -> str:
    """To which half a pair of names belongs, by its hash; what was seen too early belongs to the first."""
    if (data, attack) in SEEN:
        return "chosen"
    return ("chosen", "reported")[hashlib.sha256(f"{data}/{attack}".encode()).digest()[0] & 1]


def code() -> str:
    """A digest of the detectors' source: figures of two states of it must not meet in one table."""
    digest = hashlib.sha256()
    for path in sorted(Path(diffclean.detection.__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


CODE = code()


def measured(cell: Cell, training: Training, work: Path, teachers: bool, students: bool) -> dict[str, Any]:
    """All figures of a cell; what was measured before is read.

    Args:
        cell: which.
        training: how classifiers are made.
        work: where outcomes are kept.
        teachers: train teachers on the poisoned data, without the listed images, and on clean data.
        students: distil a student of the second of them as well.
    """
    pieces = Pieces(work / "cells" / f"{cell.name}.json", {"code": CODE})
    figures: dict[str, Any] = dict(pieces.get(cell.name, lambda: found(cell, training, work)))
    settings = {"training": asdict(training), "list": figures["list"]}
    trained = Pieces(work / "cells" / f"{cell.name}-{training.arch_for(cell.data)}.json", settings)
    if teachers or students:
        figures["teachers"] = trained.get("teachers", lambda: of_teachers(cell, training, work, figures["list"]))
    if students:
        figures["student"] = trained.get("student", lambda: of_student(cell, training, work, figures["list"]))
    return figures


def found(cell: Cell, training: Training, work: Path) -> dict[str, Any]:
    """Look for the poison, and compare what is found with the truth."""
    poisoned = poisoned_set(cell, training)
    given = evidence(cell, training)
    wall, cpu = time.monotonic(), time.process_time()
    suspects = find_suspects(poisoned, cell.detector, seed=cell.seed, **given)
    seconds = {"wall_s": time.monotonic() - wall, "cpu_s": time.process_time() - cpu}
    suspects.write(list_of(cell, work))
    manifest = None if cell.attack == BENIGN else read_manifest(poisoned)
    told: dict[str, Any] = {
        "data": cell.data.name,
        "attack": cell.attack,
        "rate": cell.rate,
        "real_rate": cell.real_rate,
    }
    told |= {"seed": cell.seed, "detector": cell.detector, "half": cell.half, "target": cell.target}
    told |= listed(suspects, manifest) | {name: round(value, 1) for name, value in seconds.items()}
    blamed = {judged.name: judged.suspects for judged in suspects.classes if judged.suspects}
    separations = {judged.name: [round(judged.separation, 3), judged.limit] for judged in suspects.classes}
    told |= {"classes": blamed, "separations": separations, "threads": torch.get_num_threads(), "code": CODE}
    return told | {"list": hashlib.sha256("\n".join(sorted(suspects.keys)).encode()).hexdigest()[:12]}


def listed(suspects: SuspectList, manifest: PoisonManifest | None) -> dict[str, Any]:
    """What a list is worth; covers are neither poisoned nor clean."""
    rows = manifest.images if manifest is not None else []
    poisoned = {row.output for row in rows if row.poisoned}
    covers = {row.output for row in rows if row.cover} - poisoned
    clean = {image.key for image in suspects.images} - poisoned - covers
    scores = {image.key: image.score for image in suspects.images}
    guilty, innocent = (np.array([scores[key] for key in keys if key in scores]) for keys in (poisoned, clean))
    told: dict[str, Any] = {"images": len(rows) or len(scores), "listed": len(suspects.keys)}
    told |= {"poisoned": len(poisoned), "covers": len(covers), "covers_listed": len(covers & suspects.keys)}
    told["tpr"] = len(poisoned & suspects.keys) / len(poisoned) if poisoned else None
    told["fpr"] = len(clean & suspects.keys) / len(clean) if clean else None
    told["auroc"] = auroc(guilty, innocent) if len(guilty) and len(innocent) else None
    return told


def auroc(guilty: NDArray[np.float64], innocent: NDArray[np.float64]) -> float:
    """The probability that a poisoned image has a higher score than a clean one; half of it where they are equal."""
    ordered = np.sort(innocent)
    below = np.searchsorted(ordered, guilty, "left") + np.searchsorted(ordered, guilty, "right")
    return float(below.mean() / 2 / len(innocent))


def evidence(cell: Cell, training: Training) -> dict[str, Any]:
    """What a detector needs beside the images; the time for it is not the detector's."""
    detector, given = get_detector(cell.detector), {}
    if detector.needs_teacher:
        given["teacher"] = teacher_of(cell, training)
    if detector.needs_variations:
        settings = Settings(engine=training.engine, strength=0.4, variations=4)
        folder = cell.data.work / "variations"
        given["variations"] = variations_of(poisoned_set(cell, training), cell.data.clean, settings, folder)
    return given


def list_of(cell: Cell, work: Path) -> Path:
    """Where the list of suspects is written."""
    return work / "lists" / f"{cell.name}.json"


def poisoned_set(cell: Cell, training: Training) -> Path:
    """The suspect training set; for the benign run, the clean one in the same form."""
    if cell.attack == BENIGN:
        return cell.data.clean
    out = cell.data.work / "poisoned" / cell.poisoning
    if not out.exists():
        parameters = dict(cell.setting.parameters)
        if cell.setting.needs_model:
            parameters["model"] = str(clean_teacher(cell.data, training, 0))
        plan = training_plan(
            cell.data.train,
            cell.setting.attack,
            cell.real_rate,
            cell.target,
            cell.seed,
            parameters,
            labels=cell.setting.labels,
        )
        out.parent.mkdir(parents=True, exist_ok=True)
        write(plan, out)
        linked(out, cell.data.clean)
    return out


def of_teachers(cell: Cell, training: Training, work: Path, digest: str) -> dict[str, Any]:
    """CA and ASR of the teacher on the suspect data, of the teacher anew, and of one that never met the attack."""
    teachers = {
        "before": teacher_of(cell, training),
        "anew": teacher_anew(cell, training, work, digest),
        "clean": clean_teacher(cell.data, training, cell.seed),
    }
    figures: dict[str, Any] = {name: rates(cell, training, path) for name, path in teachers.items()}
    return figures | {"fired": figures["before"].get("asr", 0) >= FIRED}


def of_student(cell: Cell, training: Training, work: Path, digest: str) -> dict[str, Any]:
    """CA and ASR of a student of the teacher anew, distilled on variations of the images that are not listed."""
    out = cell.data.work / "students" / f"{trained_name(cell.data, training, cell.poisoning, cell.seed)}-{digest}.pt"
    if not out.exists():
        settings = Settings(engine=training.engine)
        images = variations_of(poisoned_set(cell, training), cell.data.clean, settings, cell.data.work / "variations")
        teacher = TeacherConfig(teacher_anew(cell, training, work, digest))
        loop = LoopConfig(epochs=training.student_epochs, seed=cell.seed, tensorboard=False)
        student = training.arch_for(cell.data)
        distill(DistillConfig(teacher, images, out, student, alpha=1.0, without=list_of(cell, work), loop=loop))
    return rates(cell, training, out)


def rates(cell: Cell, training: Training, model: Path) -> dict[str, Any]:
    """CA, and where there is an attack ASR: the share of triggered images of other classes that land on the target."""
    manifest = None if cell.attack == BENIGN else poisoned_set(cell, training) / MANIFEST_FILE
    measured = evaluate(model, cell.data.test, manifest)
    names = {"ca": "clean_accuracy", "asr": "attack_success_rate"}
    return {short: measured[name]["value"] for short, name in names.items() if name in measured}


def teacher_of(cell: Cell, training: Training) -> Path:
    """The classifier that was trained on the suspect data as they are."""
    name = trained_name(cell.data, training, cell.poisoning, cell.seed)
    return _trained(cell.data, training, poisoned_set(cell, training), name, cell.seed)


def teacher_anew(cell: Cell, training: Training, work: Path, digest: str) -> Path:
    """The classifier that was trained without the listed images; the same one as before where none is listed."""
    path = list_of(cell, work)
    if digest == hashlib.sha256(b"").hexdigest()[:12]:
        return teacher_of(cell, training)
    name = f"{trained_name(cell.data, training, cell.poisoning, cell.seed)}-{digest}"
    return _trained(cell.data, training, poisoned_set(cell, training), name, cell.seed, path)


def clean_teacher(data: DataSet, training: Training, seed: int) -> Path:
    """The classifier that was trained on the clean data."""
    return _trained(data, training, data.clean, trained_name(data, training, BENIGN, seed), seed)


def trained_name(data: DataSet, training: Training, poisoning: str, seed: int) -> str:
    """A name for what depends on these and on nothing else."""
    size = training.size_for(data) or data.longest_side
    return f"{poisoning}-{seed}-{training.arch_for(data)}-{training.epochs}-{size}"


def _trained(
    data: DataSet, training: Training, images: Path, name: str, seed: int, without: Path | None = None
) -> Path:
    out = data.work / "teachers" / f"{name}.pt"
    if not out.exists():
        loop = LoopConfig(epochs=training.epochs, seed=seed, tensorboard=False)
        arch, size = training.arch_for(data), training.size_for(data)
        train(TrainConfig(images, out, without=without, size=size, arch=arch, loop=loop))
    return out
