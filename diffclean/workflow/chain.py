"""The whole job in order.

Teacher, variations, suspects, teacher anew, variations of what is kept, student, evaluation.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from diffclean.errors import Interrupted
from diffclean.workflow import steps
from diffclean.workflow.steps import Distilling, Hands, Teaching
from diffclean.workflow.suspects import FoundSuspects, reread

if TYPE_CHECKING:
    from diffclean.evaluation.evaluate import Evaluation
    from diffclean.variation.settings import Settings

log = logging.getLogger(__name__)


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
    """Where the outcome of each step lies.

    Attributes:
        teacher: trained on the data as they are.
        variations: of what is kept, for the student.
        student: what it is all for.
        suspects: the list of suspects.
        teacher_anew: trained without the suspects.
        looks: the variations that a detector looks at, where it needs some.
    """

    teacher: Path
    variations: Path
    student: Path
    suspects: Path
    teacher_anew: Path
    looks: Path

    @classmethod
    def below(cls, folder: Path) -> Places:
        """Everything in one folder."""
        names = ("teacher.pt", "variations", "student.pt", "suspects.json", "teacher-anew.pt", "looks")
        return cls(*(folder / name for name in names))


@dataclass(frozen=True)
class Chain:
    """What is done.

    Attributes:
        data: the suspect training set.
        teaching: how the teacher is trained.
        distilling: how the student is distilled.
        settings: of the variations that the student sees; None: they lie at `Places.variations` already.
        detector: that looks for suspects; None: no image is left out, and there is no teacher anew.
        look_settings: of the variations that the detector looks at, where it needs some; None: the same variations
            that the student sees.
        teaching_anew: how the teacher is trained without the suspects; None: as before.
        test: a clean test set; None: nothing is measured.
        poison: the poison manifest of the data; None: the attack is not known.
        seed: of the detector.
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


@dataclass(frozen=True)
class ChainResult:
    """What came out.

    Attributes:
        places: where the outcomes lie.
        suspects: what was found; None: no detector was asked.
        taught_by: the teacher that the student learned from.
        teacher: the measured teacher; None without a test set.
        student: the measured student, beside the teacher; None without a test set.
        seconds: of each step that was done now.
    """

    places: Places
    suspects: FoundSuspects | None
    taught_by: Path
    teacher: Evaluation | None
    student: Evaluation | None
    seconds: dict[str, float]


@dataclass
class Runner:
    """Does steps one after another, and remembers how long each took.

    A step whose outcome lies at its place is not done again. Its name is all that is looked at, so the caller gives
    places that no other settings lead to.
    """

    hands: Hands
    seconds: dict[str, float] = field(default_factory=dict)

    def do(self, step: str, work: Callable[[], object], outcome: Path | None = None) -> None:
        """Do a step, unless its outcome is there.

        Raises:
            Interrupted: someone wants the work to end; the same call goes on from here.
        """
        if self.hands.stop is not None and self.hands.stop.is_set():
            raise Interrupted("Interrupted.", "The same command goes on from here.")
        if outcome is not None and outcome.exists():
            return
        started = time.monotonic()
        work()
        self.seconds[str(step)] = round(time.monotonic() - started, 1)
        log.info("%s: %.0f s.", str(step).capitalize(), self.seconds[str(step)])


def run_chain(chain: Chain, places: Places, runner: Runner) -> ChainResult:
    """Do every step whose outcome is not there yet.

    Args:
        chain: what to do.
        places: where outcomes go.
        runner: does the steps.

    Raises:
        DiffcleanError: a step cannot be done.
        Interrupted: somebody wants the work to end; the same call goes on with the step that was interrupted.
    """
    hands = runner.hands
    train_first(chain, places, runner)
    found = _suspects(chain, places, runner) if chain.detector else None
    teacher, without = places.teacher, None
    if found is not None and found.suspects:
        without, teacher = places.suspects, places.teacher_anew
        how = chain.teaching_anew or chain.teaching
        runner.do(Step.TEACHER_ANEW, lambda: steps.train_teacher(chain.data, teacher, how, hands, without), teacher)
    if chain.settings is not None:
        # `variate` takes no list, so the suspects are varied too; the student leaves their variations out.
        _vary(Step.KEPT_VARIATIONS if without else Step.VARIATIONS, chain.settings, chain, places.variations, runner)
    runner.do(
        Step.STUDENT,
        lambda: steps.distil_student(teacher, places.variations, places.student, chain.distilling, hands, without),
        places.student,
    )
    measured = _measured(chain, places, runner)
    return ChainResult(places, found, teacher, *measured, runner.seconds)


def train_first(chain: Chain, places: Places, runner: Runner) -> None:
    """The first step alone: train the teacher on the data as they are."""
    runner.do(
        Step.TEACHER,
        lambda: steps.train_teacher(chain.data, places.teacher, chain.teaching, runner.hands),
        places.teacher,
    )


def _suspects(chain: Chain, places: Places, runner: Runner) -> FoundSuspects:
    from diffclean.detection.registry import get

    assert chain.detector is not None
    detector = get(chain.detector)
    looks = None
    if detector.needs_variations:
        looks = places.variations if chain.look_settings is None else places.looks
        settings = chain.look_settings or chain.settings
        if settings is not None:
            _vary(Step.VARIATIONS, settings, chain, looks, runner)
    teacher = places.teacher if detector.needs_teacher else None
    runner.do(
        Step.SUSPECTS,
        lambda: steps.list_suspects(
            chain.data, places.suspects, detector.name, runner.hands, teacher, looks, chain.poison, chain.seed
        ),
        places.suspects,
    )
    return reread(places.suspects, chain.poison)


def _vary(step: Step, settings: Settings, chain: Chain, out: Path, runner: Runner) -> None:
    # Never skipped by name: `variate` looks itself whether everything is there, and remakes what is lost.
    runner.do(step, lambda: steps.make_variations(chain.data, out, settings, runner.hands))


def _measured(chain: Chain, places: Places, runner: Runner) -> tuple[Evaluation | None, Evaluation | None]:
    """The teacher, and the student beside it."""
    if chain.test is None:
        return None, None
    test = chain.test
    found: list[Evaluation] = []

    def work() -> None:
        found.append(steps.measure(places.teacher, test, chain.poison, runner.hands))
        found.append(steps.measure(places.student, test, chain.poison, runner.hands, places.teacher))

    runner.do(Step.EVALUATION, work)
    return found[0], found[1]
