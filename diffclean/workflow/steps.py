"""The steps of the whole job, each a function with a typed result. They do their work even if outcomes exist."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

from diffclean.classifiers.classifier_file import ClassifierFile
from diffclean.data.registry import FOLDER
from diffclean.progress import Progress
from diffclean.training.distill_config import DistillConfig
from diffclean.training.loop_config import LoopConfig
from diffclean.workflow.suspects import FoundSuspects

if TYPE_CHECKING:
    from diffclean.evaluation.evaluate import Evaluation
    from diffclean.evaluation.variation_run import RunEvaluation
    from diffclean.training.run import TrainResult
    from diffclean.variation.settings import Settings
    from diffclean.variation.variate import VariateResult


Classifier = Path | ClassifierFile
"""A classifier of ours by its file, or anybody's with what its file does not say."""


@dataclass(frozen=True)
class Teaching:
    """How a teacher is trained.

    Attributes:
        arch: the architecture, as in `train`.
        loop: the settings of the training loop.
        size: the side in px to which images are resized. None: they are not resized.
    """

    arch: str
    loop: LoopConfig = field(default_factory=LoopConfig)
    size: int | None = None


@dataclass(frozen=True)
class Distilling:
    """How a student is distilled.

    Attributes:
        arch: the architecture, as in `train`. None: the teacher's.
        loop: the settings of the training loop.
        temperature: as in `distill`.
        alpha: as in `distill`.
        size: the side in px to which images are resized. None: the teacher's.
    """

    arch: str | None = None
    loop: LoopConfig = field(default_factory=LoopConfig)
    temperature: float = DistillConfig.temperature
    alpha: float = DistillConfig.alpha
    size: int | None = None


@dataclass(frozen=True)
class Hands:
    """How the caller follows the work and stops it.

    Attributes:
        progress: is advanced for each image. None: no progress is shown.
        stop: an event that ends the work when it is set. None: the work is not stopped.
    """

    progress: Progress | None = None
    stop: Event | None = None


def train_teacher(data: Path, out: Path, teaching: Teaching, hands: Hands, without: Path | None = None) -> TrainResult:
    """Train a classifier on the suspect data as it is, or without the images on a list.

    Args:
        data: the training set.
        out: the classifier's file.
        teaching: how the classifier is trained.
        hands: the progress and the stop event.
        without: a list of suspects, which are left out.
    """
    from diffclean.training.train import train
    from diffclean.training.train_config import TrainConfig

    config = TrainConfig(data, out, without, size=teaching.size, arch=teaching.arch, overwrite=True, loop=teaching.loop)
    return train(config, hands.progress, hands.stop)


def make_variations(data: Path, out: Path, settings: Settings, hands: Hands) -> VariateResult:
    """Regenerate every image of a data set. Variations from an earlier call with the same settings are kept.

    Of a data set in any format a folder is made: nothing has to be packed, and each variation can be linked to.

    Args:
        data: the training set.
        out: the folder of the variations.
        settings: see `variate`.
        hands: the progress and the stop event.
    """
    from diffclean.variation.variate import variate

    return variate(data, out, settings, to=FOLDER, progress=hands.progress, stop=hands.stop)


def list_suspects(
    data: Path,
    out: Path,
    detector: str,
    hands: Hands,
    teacher: Classifier | None = None,
    variations: Path | None = None,
    poison: Path | None = None,
    seed: int = 1,
    device: str | None = None,
    size: int | None = None,
) -> FoundSuspects:
    """Look for poisoned images, and write the list of those that are found.

    Args:
        data: the training set.
        out: the file of the list.
        detector: the name of the detector.
        hands: the progress and the stop event.
        teacher: a classifier that was trained on the data, for detectors that need one.
        variations: variations of the data, for detectors that need them.
        poison: the poison manifest of the data, if there is one. The list is compared with it.
        seed: the seed of everything that is random.
        device: a torch device. None: CUDA if it works, otherwise the CPU.
        size: as in `find_suspects`.
    """
    from diffclean.detection.find import find_suspects
    from diffclean.workflow.suspects import found_suspects

    found = find_suspects(
        data,
        detector,
        teacher,
        variations,
        size=size,
        device=device,
        seed=seed,
        progress=hands.progress,
        stop=hands.stop,
    )
    found.write(out)
    return found_suspects(found, out, poison)


def distil_student(
    teacher: Classifier, images: Path, out: Path, distilling: Distilling, hands: Hands, without: Path | None = None
) -> TrainResult:
    """Distil a student from a teacher's answers.

    Args:
        teacher: the teacher.
        images: the variations that the student sees.
        out: the student's file.
        distilling: how the student is distilled.
        hands: the progress and the stop event.
        without: a list of suspects, whose variations are left out.
    """
    from diffclean.training.distill import distill

    config = DistillConfig(
        teacher=ClassifierFile(teacher) if isinstance(teacher, Path) else teacher,
        data=images,
        out=out,
        student=distilling.arch,
        temperature=distilling.temperature,
        alpha=distilling.alpha,
        size=distilling.size,
        without=without,
        overwrite=True,
        loop=distilling.loop,
    )
    return distill(config, hands.progress, hands.stop)


def measure(
    model: Classifier,
    test: Path,
    poison: Path | None,
    hands: Hands,
    undefended: Classifier | None = None,
    device: str | None = None,
) -> Evaluation:
    """Measure a classifier on a clean test set and, with a poison manifest, on triggered images too.

    Args:
        model: the classifier.
        test: the test set.
        poison: the poison manifest of the training set. None: the attack is not known.
        hands: the progress and the stop event.
        undefended: the classifier before the defence, for comparison; only with `poison`.
        device: a torch device. None: CUDA if it works, otherwise the CPU.
    """
    from diffclean.evaluation.evaluate import evaluate

    return evaluate(model, test, poison, undefended if poison else None, device, hands.progress)


def measure_variations(teacher: Classifier, variations: Path, hands: Hands, device: str | None = None) -> RunEvaluation:
    """Measure the label preservation of the variations and, if the attack is known, the trigger survival."""
    from diffclean.evaluation.variation_run import evaluate_run

    return evaluate_run(teacher, variations, device, hands.progress)
