"""What was measured of the classifiers and variations of one chain, written and read back."""

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
    """What was measured; None: it was not.

    Attributes:
        teacher: the first teacher, on the test set.
        student: the student, beside the first teacher where the attack is known.
        anew: the teacher that was trained without the suspects.
        variations: what the variations keep of labels and trigger.
    """

    teacher: Evaluation | None = field(default=None, metadata=WHERE_MEASURED)
    student: Evaluation | None = field(default=None, metadata=WHERE_MEASURED)
    anew: Evaluation | None = field(default=None, metadata=WHERE_MEASURED)
    variations: RunEvaluation | None = field(default=None, metadata=WHERE_MEASURED)


@dataclass(frozen=True)
class Asked:
    """What is measured on what.

    Attributes:
        teacher: the first.
        student: the student.
        anew: the teacher that was trained without the suspects; None: there is none.
        test: a clean test set; None: there is none.
        poison: the poison manifest of the training set; None: the attack is not known.
    """

    teacher: Classifier
    student: Path
    anew: Path | None
    test: Path | None
    poison: Path | None


def measure_all(asked: Asked, variations: Path | None, hands: Hands) -> Evaluations:
    """Measure everything.

    Args:
        asked: classifiers and test set.
        variations: an output folder of `variate` that is looked at with the first teacher; None: none is.
        hands: who follows it.
    """
    teacher = student = anew = None
    if (test := asked.test) is not None:
        teacher = steps.measure(asked.teacher, test, asked.poison, hands)
        student = steps.measure(asked.student, test, asked.poison, hands, asked.teacher)
        if asked.anew is not None:
            anew = steps.measure(asked.anew, test, asked.poison, hands)
    kept = steps.measure_variations(asked.teacher, variations, hands) if variations is not None else None
    return Evaluations(teacher, student, anew, kept)


def write(found: Evaluations, path: Path) -> None:
    """Write it as JSON, whole."""
    make_folders(path.parent)
    write_whole(path, (json_text(found) + "\n").encode())


def read(path: Path) -> Evaluations:
    """Read what `write` wrote.

    Raises:
        DiffcleanError: it is missing or damaged.
    """
    try:
        return from_json(Evaluations, read_json(path, _LIMIT_BYTES))
    except ValueError as error:
        raise DiffcleanError(f"{path} is damaged: {error}.", "Remove it; it is measured anew.") from error
