"""Runs the steps of the whole job in order.

The steps are: teacher, variations, suspects, new teacher, variations of the kept images, student, evaluation.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from diffclean.workflow import made_of, measured, steps
from diffclean.workflow.measured import Evaluations
from diffclean.workflow.runner import Runner
from diffclean.workflow.steps import Classifier, Distilling, Teaching
from diffclean.workflow.suspects import FoundSuspects, reread

if TYPE_CHECKING:
    from diffclean.classifiers.classifier_file import ClassifierFile
    from diffclean.evaluation.evaluate import Evaluation
    from diffclean.variation.settings import Settings


class Step(StrEnum):
    """The steps, in the order in which they are done."""

    TEACHER = "train the teacher"
    VARIATIONS = "make variations"
    SUSPECTS = "find suspects"
    TEACHER_ANEW = "train the teacher anew"
    KEPT_VARIATIONS = "make variations of what is kept"
    STUDENT = "distil the student"
    EVALUATION = "evaluate"


@dataclass(frozen=True)
class Places:
    """The places of the outcomes of the steps.

    Attributes:
        teacher: the teacher that is trained on the data as it is.
        variations: the variations of the kept images, for the student.
        student: the student, which is the goal of the job.
        suspects: the list of suspects.
        teacher_anew: the teacher that is trained without the suspects.
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
        test: a clean test set; None: classifiers are not measured.
        poison: the poison manifest of the data; None: the attack is not known.
        seed: the seed of the detector.
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
    test: Path | None = None
    poison: Path | None = None
    seed: int = 1
    teacher: ClassifierFile | None = None
    measures_variations: bool = False
    digest: str = ""
    test_digest: str = ""


@dataclass(frozen=True)
class ChainResult:
    """The results of the chain.

    Attributes:
        places: the places of the outcomes.
        suspects: the suspects that were found. None: no detector was asked.
        taught_by: the teacher from which the student was distilled.
        measured: the measurements of the classifiers and variations.
        seconds: how long each step took that was done in this call.
    """

    places: Places
    suspects: FoundSuspects | None
    taught_by: Classifier
    measured: Evaluations
    seconds: dict[str, float]

    @property
    def teacher(self) -> Evaluation | None:
        """The measured teacher; None without a test set."""
        return self.measured.teacher

    @property
    def student(self) -> Evaluation | None:
        """The measured student, beside the teacher; None without a test set."""
        return self.measured.student


def run_chain(chain: Chain, places: Places, runner: Runner) -> ChainResult:
    """Do every step whose outcome does not exist yet.

    Args:
        chain: determines the steps.
        places: where the outcomes are written.
        runner: does the steps.

    Raises:
        DiffcleanError: a step cannot be done.
        Interrupted: the work was asked to stop; the same call continues with the interrupted step.
    """
    train_first(chain, places, runner)
    found = search(chain, places, runner)
    return finish(chain, places, runner, found)


def train_first(chain: Chain, places: Places, runner: Runner) -> None:
    """Do the first step alone: train the teacher on the data as it is, unless one is given."""
    if chain.teacher is None:
        runner.do(
            Step.TEACHER,
            lambda: steps.train_teacher(chain.data, places.teacher, chain.teaching, runner.hands),
            places.teacher,
            made_of.teacher(chain.digest, chain.teaching),
        )


def search(chain: Chain, places: Places, runner: Runner) -> FoundSuspects | None:
    """Look for suspects; return None if no detector is asked."""
    from diffclean.detection.registry import get

    if chain.detector is None:
        return None
    detector = get(chain.detector)
    looks = settings = None
    if detector.needs_variations:
        looks = places.variations if chain.look_settings is None else places.looks
        settings = chain.look_settings or chain.settings
        if settings is not None:
            _vary(Step.VARIATIONS, settings, chain, looks, runner)
    teacher = first_teacher(chain, places) if detector.needs_teacher else None
    runner.do(
        Step.SUSPECTS,
        lambda: steps.list_suspects(
            chain.data, places.suspects, detector.name, runner.hands, teacher, looks, chain.poison, chain.seed
        ),
        places.suspects,
        made_of.suspects(chain.digest, detector.name, chain.seed, teacher, settings),
        editable=True,
    )
    return reread(places.suspects, chain.poison)


def finish(chain: Chain, places: Places, runner: Runner, found: FoundSuspects | None) -> ChainResult:
    """Do all steps that follow the search for suspects: new teacher, variations, student, evaluation."""
    hands = runner.hands
    without = places.suspects if found is not None and found.suspects else None
    left_out = found.keys if found is not None else frozenset()
    teacher: Classifier = first_teacher(chain, places)
    if without is not None:
        teacher, how = places.teacher_anew, chain.teaching_anew or chain.teaching
        runner.do(
            Step.TEACHER_ANEW,
            lambda: steps.train_teacher(chain.data, places.teacher_anew, how, hands, without),
            places.teacher_anew,
            made_of.teacher(chain.digest, how, left_out),
        )
    if chain.settings is not None:
        # `variate` takes no list, so the suspects are regenerated too. The student leaves their variations out.
        _vary(Step.KEPT_VARIATIONS if without else Step.VARIATIONS, chain.settings, chain, places.variations, runner)
    runner.do(
        Step.STUDENT,
        lambda: steps.distil_student(teacher, places.variations, places.student, chain.distilling, hands, without),
        places.student,
        made_of.student(chain.digest, teacher, chain.settings, chain.distilling, left_out),
    )
    evaluations = _measured(chain, places, runner, anew=without is not None)
    return ChainResult(places, found, teacher, evaluations, runner.seconds)


def first_teacher(chain: Chain, places: Places) -> Classifier:
    """Return the classifier that was trained on the data as it is."""
    return chain.teacher or places.teacher


def _vary(step: Step, settings: Settings, chain: Chain, out: Path, runner: Runner) -> None:
    # This step is never skipped by its name: `variate` itself checks that nothing is missing.
    runner.do(
        step,
        lambda: steps.make_variations(chain.data, out, settings, runner.hands),
        out if runner.ledger is not None else None,
        made_of.variations(settings),
    )


def _measured(chain: Chain, places: Places, runner: Runner, anew: bool) -> Evaluations:
    """Measure the classifiers on the test set, and what the variations preserve."""
    if chain.test is None and not chain.measures_variations:
        return Evaluations()
    found: list[Evaluations] = []
    first, second = first_teacher(chain, places), places.teacher_anew if anew else None

    def work() -> None:
        asked = measured.Asked(first, places.student, second, chain.test, chain.poison)
        looked_at = places.variations if chain.measures_variations else None
        found.append(measured.measure_all(asked, looked_at, runner.hands))
        if places.evaluation is not None:
            measured.write(found[-1], places.evaluation)

    if places.evaluation is None:
        runner.do(Step.EVALUATION, work)
        return found[0]
    of = made_of.evaluation(first, places.student, second, chain.test_digest, chain.poison)
    runner.do(Step.EVALUATION, work, places.evaluation, of | {"variations": made_of.variations(chain.settings)})
    return found[0] if found else measured.read(places.evaluation)
