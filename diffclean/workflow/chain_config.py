"""What determines the steps of the whole job: their names, the places of their outcomes, and their settings."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from diffclean.workflow.steps import Distilling, Teaching

if TYPE_CHECKING:
    from diffclean.classifiers.classifier_file import ClassifierFile
    from diffclean.variation.settings import Settings


class Step(StrEnum):
    """The steps, in the order in which they are done."""

    MIRRORED = "look at mirrored images"
    TEACHER = "train the teacher"
    LOOKS = "make variations for the detector"
    SUSPECTS = "find suspects"
    TEACHER_ANEW = "train the teacher anew"
    SECOND_PASS = "look for what the list missed"
    VARIATIONS = "make variations"
    STUDENT = "distil the student"
    EVALUATION = "evaluate"


@dataclass(frozen=True)
class Places:
    """The places of the outcomes of the steps.

    Attributes:
        teacher: the teacher that is trained on the data as it is.
        variations: the variations, for the student.
        student: the student, which is the goal of the job.
        suspects: the list of suspects, which people may edit.
        teacher_anew: the teacher that is trained without the suspects. The lists of the detectors lie beside it.
        looks: the variations that the detector looks at, if it needs any.
        evaluation: the measurements as JSON. None: they are not kept, and are measured again each time.
    """

    teacher: Path
    variations: Path
    student: Path
    suspects: Path
    teacher_anew: Path
    looks: Path
    evaluation: Path | None = None

    @classmethod
    def below(cls, folder: Path) -> Places:
        """Return the places for all outcomes in one folder."""
        names = ("teacher.pt", "variations", "student.pt", "suspects.json", "teacher-anew.pt", "looks")
        return cls(*(folder / name for name in names))

    def anew(self, number: int) -> Path:
        """Return the place of the teacher that is trained anew for the first (1), second (2) ... time."""
        return self.teacher_anew if number == 1 else self.teacher_anew.with_stem(f"{self.teacher_anew.stem}-{number}")

    def without(self, number: int) -> Path:
        """Return the place of the list that this teacher is trained without: of the first one, the detector's list."""
        return self.anew(number).with_suffix(".without.json")


@dataclass(frozen=True)
class Chain:
    """Everything that determines the steps.

    Attributes:
        data: the suspect training set.
        teaching: how the teacher is trained.
        distilling: how the student is distilled.
        settings: the settings of the student's variations. None: the variations are at `Places.variations` already.
        detector: the detector that looks for suspects. None: no image is left out, and no new teacher is trained.
        look_settings: the settings of the variations that the detector looks at, if it needs any. None: it looks at
            the student's variations.
        teaching_anew: how the teacher is trained without the suspects. None: like the first teacher.
        passes: how often, at most, the two teachers are compared to find suspects that the list missed (`second_pass`).
        test: a clean test set; None: classifiers are not measured.
        poison: the poison manifest of the data; None: the attack is not known.
        seed: the seed of the detector.
        device: the torch device of the detectors and the measurements. None: CUDA if it works, otherwise the CPU.
        teacher: an existing classifier that takes the place of the first teacher. None: a teacher is trained.
        measures_variations: whether to measure how well the variations preserve labels and how often the trigger
            survives.
        digest: a sha256 of the data, for runners with a ledger.
        test_digest: a sha256 of the test set, for the same purpose.
    """

    data: Path
    teaching: Teaching
    distilling: Distilling
    settings: Settings | None
    detector: str | None = None
    look_settings: Settings | None = None
    teaching_anew: Teaching | None = None
    passes: int = 0
    test: Path | None = None
    poison: Path | None = None
    seed: int = 1
    device: str | None = None
    teacher: ClassifierFile | None = None
    measures_variations: bool = False
    digest: str = ""
    test_digest: str = ""
