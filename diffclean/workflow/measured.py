"""Measures the classifiers and variations of one chain, and writes and reads the measurements."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from diffclean.data.atomic import make_folders, write_whole
from diffclean.data.json_file import read_json
from diffclean.errors import DiffcleanError
from diffclean.evaluation.evaluate import Evaluation
from diffclean.evaluation.variation_run import RunEvaluation
from diffclean.report.reading import from_json
from diffclean.results import WHERE_MEASURED, json_text
from diffclean.workflow import steps
from diffclean.workflow.steps import Classifier, Hands

_LIMIT_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Evaluations:
    """The measurements. A measurement that was not made is None.

    Attributes:
        teacher: the first teacher, on the test set.
        student: the student, compared with the first teacher if the attack is known.
        anew: the teacher that was trained without the suspects.
        variations: the label preservation and the trigger survival of the variations.
    """

    teacher: Evaluation | None = field(default=None, metadata=WHERE_MEASURED)
    student: Evaluation | None = field(default=None, metadata=WHERE_MEASURED)
    anew: Evaluation | None = field(default=None, metadata=WHERE_MEASURED)
    variations: RunEvaluation | None = field(default=None, metadata=WHERE_MEASURED)


@dataclass(frozen=True)
class Asked:
    """The classifiers to measure, and the data to measure them on.

    Attributes:
        teacher: the first teacher.
        student: the student.
        anew: the teacher that was trained without the suspects. None: there is none.
        test: a clean test set. None: there is none.
        poison: the poison manifest of the training set. None: the attack is not known.
        device: the torch device to measure them on. None: CUDA if it works, otherwise the CPU.
    """

    teacher: Classifier
    student: Path
    anew: Path | None
    test: Path | None
    poison: Path | None
    device: str | None = None


def measure_all(asked: Asked, variations: Path | None, hands: Hands) -> Evaluations:
    """Measure everything.

    Args:
        asked: the classifiers and the test set.
        variations: an output folder of `variate` whose images the first teacher judges. None: there is none.
        hands: the progress and the stop event.
    """
    teacher = student = anew = None
    if (test := asked.test) is not None:
        teacher = steps.measure(asked.teacher, test, asked.poison, hands, device=asked.device)
        student = steps.measure(asked.student, test, asked.poison, hands, asked.teacher, asked.device)
        if asked.anew is not None:
            anew = steps.measure(asked.anew, test, asked.poison, hands, device=asked.device)
    kept = None
    if variations is not None:
        kept = steps.measure_variations(asked.teacher, variations, hands, asked.device)
    return Evaluations(teacher, student, anew, kept)


def write(found: Evaluations, path: Path) -> None:
    """Write the measurements as JSON, as a whole."""
    make_folders(path.parent)
    write_whole(path, (json_text(found) + "\n").encode())


def read(path: Path) -> Evaluations:
    """Read the measurements that `write` wrote.

    Raises:
        DiffcleanError: the file is missing or damaged.
    """
    try:
        return from_json(Evaluations, read_json(path, _LIMIT_BYTES))
    except ValueError as error:
        raise DiffcleanError(f"{path} is damaged: {error}.", "Remove it; it is measured anew.") from error
