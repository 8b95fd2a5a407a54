"""The data and classifiers of a cell of `detection.py`. Each is made once and kept beside its data set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detection_cell import BENIGN, Cell
from detection_data import DataSet, linked
from robustness_data import variations_of

from diffclean.attacks.manifest import MANIFEST_FILE
from diffclean.attacks.plan import training_plan
from diffclean.attacks.poison import write
from diffclean.classifiers.classifier_file import ClassifierFile
from diffclean.evaluation.evaluate import evaluate
from diffclean.evaluation.metrics import FIRED
from diffclean.training.distill import distill
from diffclean.training.distill_config import DistillConfig
from diffclean.training.loop_config import LoopConfig
from diffclean.training.train import train
from diffclean.training.train_config import TrainConfig
from diffclean.variation.settings import Settings

LARGE = 64
"""Pixels; images with a longer side have a classifier of their own."""
ATTACKERS_SEED = 0
"""Of the clean classifier that an attacker has; none of those that are measured has it."""


@dataclass(frozen=True)
class Training:
    """How classifiers are made.

    Attributes:
        arch: of teacher and student.
        large_arch: the same for images of more than `LARGE` px.
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
        return self.large_arch if data.longest_side > LARGE else self.arch

    def size_for(self, data: DataSet) -> int | None:
        """The side at which it sees them; None: as they are."""
        return self.side if data.longest_side > self.side else None

    def name(self, data: DataSet, poisoning: str, seed: int) -> str:
        """A name for a classifier that depends on these alone."""
        size = self.size_for(data) or data.longest_side
        return f"{poisoning}-{seed}-{self.arch_for(data)}-{self.epochs}-{size}"


@dataclass(frozen=True)
class Listed:
    """A list of suspects that names at least one image.

    Attributes:
        path: of the list.
        digest: of the keys that it names.
    """

    path: Path
    digest: str


ATTACKERS = Training("wrn-16-1", "resnet8-cifar", 64, 20, 20, "micro")
"""The classifier with which an attacker makes label-consistent images, where nothing else is trained."""


def poisoned_set(cell: Cell, training: Training) -> Path:
    """The suspect training set; for the benign run, the clean one in the same form."""
    if cell.attack == BENIGN:
        return cell.data.clean
    out = cell.data.work / "poisoned" / cell.poisoning
    if not out.exists():
        setting = cell.setting
        parameters = dict(setting.parameters)
        if setting.needs_model:
            parameters["model"] = str(clean_teacher(cell.data, training, ATTACKERS_SEED))
        rate, target, labels = cell.real_rate, cell.target, setting.labels
        plan = training_plan(cell.data.train, setting.attack, rate, target, cell.seed, parameters, labels=labels)
        out.parent.mkdir(parents=True, exist_ok=True)
        write(plan, out)
        linked(out, cell.data.clean)
    return out


def variations(cell: Cell, training: Training, settings: Settings) -> Path:
    """Variations of the suspect training set."""
    return variations_of(poisoned_set(cell, training), cell.data.clean, settings, cell.data.work / "variations")


def of_teachers(cell: Cell, training: Training, listed: Listed | None) -> dict[str, Any]:
    """CA and ASR of the teacher on the suspect data, of the teacher anew, and of one that never met the attack."""
    teachers = {
        "before": teacher_of(cell, training),
        "anew": teacher_anew(cell, training, listed),
        "clean": clean_teacher(cell.data, training, cell.seed),
    }
    figures: dict[str, Any] = {name: rates(cell, training, path) for name, path in teachers.items()}
    return figures | {"fired": figures["before"].get("asr", 0) >= FIRED}


def of_student(cell: Cell, training: Training, listed: Listed | None) -> dict[str, Any]:
    """CA and ASR of a student of the teacher anew, distilled on variations of the images that are not listed."""
    name = training.name(cell.data, cell.poisoning, cell.seed) + (f"-{listed.digest}" if listed else "")
    out = cell.data.work / "students" / f"{name}-{training.student_epochs}.pt"
    if not out.exists():
        images = variations(cell, training, Settings(engine=training.engine))
        teacher = ClassifierFile(teacher_anew(cell, training, listed))
        loop = LoopConfig(epochs=training.student_epochs, seed=cell.seed, tensorboard=False)
        without = listed.path if listed else None
        student = training.arch_for(cell.data)
        distill(DistillConfig(teacher, images, out, student, alpha=1.0, without=without, loop=loop))
    return rates(cell, training, out)


def rates(cell: Cell, training: Training, model: Path) -> dict[str, Any]:
    """CA, and where there is an attack ASR: the share of triggered images of other classes that land on the target."""
    manifest = None if cell.attack == BENIGN else poisoned_set(cell, training) / MANIFEST_FILE
    measured = evaluate(model, cell.data.test, manifest)
    names = {"ca": "clean_accuracy", "asr": "attack_success_rate"}
    found = {short: getattr(measured, name) for short, name in names.items()}
    return {short: rate.value for short, rate in found.items() if rate is not None}


def teacher_of(cell: Cell, training: Training) -> Path:
    """The classifier that was trained on the suspect data as they are."""
    name = training.name(cell.data, cell.poisoning, cell.seed)
    return _trained(cell.data, training, poisoned_set(cell, training), name, cell.seed)


def teacher_anew(cell: Cell, training: Training, listed: Listed | None) -> Path:
    """The classifier that was trained without the listed images; the same one as before where none is listed."""
    if listed is None:
        return teacher_of(cell, training)
    name = f"{training.name(cell.data, cell.poisoning, cell.seed)}-{listed.digest}"
    return _trained(cell.data, training, poisoned_set(cell, training), name, cell.seed, listed.path)


def clean_teacher(data: DataSet, training: Training, seed: int) -> Path:
    """The classifier that was trained on the clean data."""
    return _trained(data, training, data.clean, training.name(data, BENIGN, seed), seed)


def _trained(
    data: DataSet, training: Training, images: Path, name: str, seed: int, without: Path | None = None
) -> Path:
    out = data.work / "teachers" / f"{name}.pt"
    if not out.exists():
        loop = LoopConfig(epochs=training.epochs, seed=seed, tensorboard=False)
        arch, size = training.arch_for(data), training.size_for(data)
        train(TrainConfig(images, out, without=without, size=size, arch=arch, loop=loop))
    return out
