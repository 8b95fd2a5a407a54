"""Runs the steps of the whole job in order.

The steps are: teacher, suspects, new teacher, second pass, variations, student, evaluation.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from diffclean.data.hashes import sha256_of
from diffclean.data.suspects import read_list
from diffclean.workflow import made_of, measured, steps
from diffclean.workflow.chain_config import Chain, Places, Step
from diffclean.workflow.measured import Evaluations
from diffclean.workflow.runner import Runner
from diffclean.workflow.second_pass import look_again, train_anew
from diffclean.workflow.steps import Classifier
from diffclean.workflow.suspects import FoundSuspects, reread

if TYPE_CHECKING:
    from diffclean.evaluation.evaluate import Evaluation
    from diffclean.variation.settings import Settings


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
    """Look for suspects, then for what the list missed; return None if no detector is asked.

    A list that a person has changed is taken as it is, as long as the detector would get the same data.
    """
    from diffclean.detection.registry import get

    if chain.detector is None:
        return None
    detector, first = get(chain.detector), places.without(1)
    looks = settings = None
    if detector.needs_variations:
        looks = places.variations if chain.look_settings is None else places.looks
        settings = chain.look_settings or chain.settings
    teacher = first_teacher(chain, places) if detector.needs_teacher else None
    # A trigger is looked for at the size at which classifiers would learn it.
    size = None if detector.needs_teacher else chain.teaching.size
    of = made_of.suspects(chain.digest, detector.name, chain.seed, teacher, settings, size)
    if not runner.is_settled(places.suspects, first, of):
        if looks is not None and settings is not None:
            _vary(Step.VARIATIONS if looks == places.variations else Step.LOOKS, settings, chain, looks, runner)
        runner.do(
            Step.SUSPECTS,
            lambda: steps.list_suspects(
                chain.data,
                first,
                detector.name,
                runner.hands,
                teacher,
                looks,
                chain.poison,
                chain.seed,
                chain.device,
                size,
            ),
            first,
            of,
        )
        last = look_again(chain, places, runner)
        of |= {"list": sha256_of(last)}
        runner.do(Step.SUSPECTS, lambda: read_list(last).write(places.suspects), places.suspects, of, editable=True)
    return reread(places.suspects, chain.poison)


def finish(chain: Chain, places: Places, runner: Runner, found: FoundSuspects | None) -> ChainResult:
    """Do all steps that follow the search for suspects: new teacher, variations, student, evaluation."""
    without = places.suspects if found is not None and found.suspects else None
    left_out = found.keys if found is not None else frozenset()
    teacher: Classifier = first_teacher(chain, places)
    anew: Path | None = None
    if without is not None:
        teacher = anew = train_anew(chain, places, runner, without, left_out)
    if chain.settings is not None:
        # The suspects are regenerated too: the report shows them beside their variations, and the list may change.
        _vary(Step.VARIATIONS, chain.settings, chain, places.variations, runner)
    runner.do(
        Step.STUDENT,
        lambda: steps.distil_student(
            teacher, places.variations, places.student, chain.distilling, runner.hands, without
        ),
        places.student,
        made_of.student(chain.digest, teacher, chain.settings, chain.distilling, left_out),
    )
    return ChainResult(places, found, teacher, _measured(chain, places, runner, anew), runner.seconds)


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


def _measured(chain: Chain, places: Places, runner: Runner, anew: Path | None) -> Evaluations:
    """Measure the classifiers on the test set, and what the variations preserve."""
    if chain.test is None and not chain.measures_variations:
        return Evaluations()
    found: list[Evaluations] = []
    first = first_teacher(chain, places)

    def work() -> None:
        asked = measured.Asked(first, places.student, anew, chain.test, chain.poison, chain.device)
        looked_at = places.variations if chain.measures_variations else None
        found.append(measured.measure_all(asked, looked_at, runner.hands))
        if places.evaluation is not None:
            measured.write(found[-1], places.evaluation)

    if places.evaluation is None:
        runner.do(Step.EVALUATION, work)
        return found[0]
    of = made_of.evaluation(first, places.student, anew, chain.test_digest, chain.poison)
    runner.do(Step.EVALUATION, work, places.evaluation, of | {"variations": made_of.variations(chain.settings)})
    return found[0] if found else measured.read(places.evaluation)
