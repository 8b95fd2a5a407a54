"""`clean`: the whole job in one folder, from suspect data to a clean student, a cleaned data set and a report."""

from __future__ import annotations

import logging
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffclean.data.atomic import make_folders, write_whole
from diffclean.data.json_file import read_json
from diffclean.data.lock import Lock
from diffclean.data.run_record import OtherRunError
from diffclean.data.suspects import SuspectList
from diffclean.errors import DiffcleanError, ExitCode, Interrupted
from diffclean.report.card import write_card
from diffclean.report.facts import GateCheck, SelfTest
from diffclean.report.reading import from_json
from diffclean.report.write import write_report
from diffclean.results import WHERE_MEASURED, json_text
from diffclean.workflow import chain as job
from diffclean.workflow import gate, made_of, outputs
from diffclean.workflow.chain_config import Chain, Places, Step
from diffclean.workflow.clean_config import SELF_TEST, STAGES
from diffclean.workflow.clean_facts import facts_of
from diffclean.workflow.clean_job import Outcome, chain_of, places_of
from diffclean.workflow.measured import Evaluations
from diffclean.workflow.prepare import Prepared
from diffclean.workflow.runner import Runner, keep_edited, telling_the_need
from diffclean.workflow.self_test import self_test
from diffclean.workflow.self_test import settings_of as settings_of_test
from diffclean.workflow.steps import Hands, make_variations
from diffclean.workflow.suspects import FoundSuspects

if TYPE_CHECKING:
    from diffclean.training.mirrored import Mirrored

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CleanResult:
    """The results of the job.

    Attributes:
        out: the folder of the job.
        report: the file of the report.
        verdict: the first sentence of the report.
        reasons: the reasons for the verdict.
        student: the clean classifier, which is also stored beside it as .safetensors and .onnx. None: no student could
            be trained.
        images: how many images could be read.
        kept: how many of them are not left out.
        suspects: the suspects that were found. None: there was no search.
        cleaned: the cleaned data set. None: it was not asked for.
        measured: the measurements of the classifiers and variations.
        self_test: the result of the self-test. None: it is not known.
        gate: the limits that were set.
        cannot: what could not be done and why, in sentences.
        gave_up: what was given up to keep to the budget, in sentences.
        failed: key -> the reason why an image could not be read. Such images were left out of everything.
        seconds: step -> how long it took in all runs together.
    """

    out: Path
    report: Path
    verdict: str
    reasons: tuple[str, ...]
    student: Path | None
    images: int
    kept: int
    suspects: FoundSuspects | None = field(metadata=WHERE_MEASURED)
    cleaned: Path | None
    measured: Evaluations
    self_test: SelfTest | None
    gate: tuple[GateCheck, ...]
    cannot: tuple[str, ...]
    gave_up: list[str]
    failed: Mapping[str, str]
    seconds: dict[str, float]

    @property
    def exit_code(self) -> ExitCode:
        """The exit code: a limit was missed, no student or images that could not be read, or done."""
        if any(not check.passed for check in self.gate):
            return ExitCode.GATE_MISSED
        return ExitCode.SOME_FAILED if self.failed or self.student is None else ExitCode.DONE


def clean(prepared: Prepared, hands: Hands, command: str = "") -> CleanResult:
    """Do the whole job, or what is left of it.

    Args:
        prepared: the job with its decisions.
        hands: the progress and the stop event.
        command: the command that was typed, for the report.

    Raises:
        DiffcleanError: a step cannot be done.
        WriteError: the disk is full or cannot be written; the same call continues it.
        Interrupted: the work was asked to stop; the same call continues it.
    """
    config, ledger = prepared.config, prepared.ledger
    make_folders(config.out)
    with Lock(config.out), telling_the_need(config.out, prepared.plan.bytes):
        _note(prepared)
        try:
            outcome = _steps(prepared, Runner(hands, ledger=ledger))
        except Interrupted as error:
            done = ", ".join(ledger.done) or "nothing yet"
            raise Interrupted(f"Interrupted. Done so far: {done}.", error.hint) from error
        except OtherRunError as error:
            hint = "To make the variations and all that follows anew, add to the same command: `from_step` variations"
            raise DiffcleanError(error.message, hint) from error
        facts = facts_of(prepared, outcome, command)
        facts.write(config.out)
        if outcome.cleaned is not None:
            write_card(config.out, facts, variations=config.cleaned == "variations")
        page = write_report(config.out)
    return CleanResult(
        out=config.out,
        report=Path(page.page),
        verdict=page.verdict,
        reasons=page.reasons,
        student=config.out / outputs.STUDENT[0] if outcome.trained else None,
        images=prepared.found.images,
        kept=sum(outcome.kept.values()),
        suspects=outcome.suspects,
        cleaned=outcome.cleaned,
        measured=outcome.measured,
        self_test=outcome.self_test,
        gate=outcome.gate,
        cannot=outcome.cannot,
        gave_up=prepared.plan.gave_up,
        failed=prepared.found.unreadable,
        seconds=ledger.seconds,
    )


def _note(prepared: Prepared) -> None:
    """Record what this job is, and forget the steps that are to be done again."""
    config, ledger = prepared.config, prepared.ledger
    ledger.note("asked", config.asked())
    ledger.note("plan", asdict(prepared.plan))
    ledger.note("look", asdict(prepared.found))
    if prepared.test is not None:
        ledger.note("test", asdict(prepared.test))
    if config.from_step is not None:
        names = list(STAGES)
        again = names[names.index(config.from_step) :]
        suspects = places_of(config.out).suspects
        if "suspects" in again and ledger.was_edited(suspects):
            keep_edited(suspects)
        ledger.forget([step for name in again for step in STAGES[name]])
        if SELF_TEST in again:  # it has a ledger of its own, from which it would go on
            shutil.rmtree(_self_test_place(config.out).with_suffix(""), ignore_errors=True)


def _steps(prepared: Prepared, runner: Runner) -> Outcome:
    """Do every step that is not done yet."""
    config, plan = prepared.config, prepared.plan
    places = places_of(config.out)
    mirrored = _mirrored(prepared, runner) if plan.trains and config.looks_at_mirrored else None
    chain = chain_of(prepared, mirrored)
    outcome = Outcome(cannot=tuple(plan.cannot), kept=dict(prepared.found.classes), mirrored=mirrored)
    if plan.trains:
        job.train_first(chain, places, runner)
        found = job.search(chain, places, runner)
        if found is not None:
            outcome = _with_suspects(outcome, prepared, found)
    if plan.trains and (problem := _untrainable(outcome.kept)):
        outcome = replace(outcome, cannot=(*outcome.cannot, problem))
    elif plan.trains:
        done = job.finish(chain, places, runner, outcome.suspects)
        outputs.write_student(places.student, config.out, runner)
        outcome = replace(outcome, trained=True, measured=done.measured)
    if not outcome.trained:
        outputs.remove_student(config.out)
        assert chain.settings is not None
        settings = chain.settings
        runner.do(
            Step.VARIATIONS,
            lambda: make_variations(chain.data, places.variations, settings, runner.hands),
            places.variations,
            made_of.variations(settings),
        )
    outcome = replace(outcome, self_test=_self_tested(prepared, chain, outcome, runner))
    limits = gate.checks(config.max_asr, config.max_loss, outcome.measured, outcome.self_test)
    return replace(outcome, gate=limits, cleaned=_cleaned(prepared, places, outcome, runner))


def _mirrored(prepared: Prepared, runner: Runner) -> Mirrored:
    """Find out whether a training may mirror the images."""
    from diffclean.datasets.variations import classes_of
    from diffclean.training.mirrored import Mirrored, look_in_mirror

    config, found, hands = prepared.config, prepared.found, runner.hands
    place = config.out / "work" / "mirrored.json"

    def work() -> None:
        make_folders(place.parent)
        classes = classes_of(config.data)
        seen = look_in_mirror(config.data, classes, config.seed, config.device, hands.progress, hands.stop)
        write_whole(place, json_text(seen).encode())

    runner.do(Step.MIRRORED, work, place, {"data": found.digest, "seed": config.seed})
    seen = from_json(Mirrored, read_json(place))
    if seen.told:
        log.info("%s", seen.told)
    return seen


def _with_suspects(outcome: Outcome, prepared: Prepared, found: FoundSuspects) -> Outcome:
    """Add the suspects to the outcome. The list, which a person may have changed since, is written as CSV too."""
    listed = found.listed
    assert isinstance(listed, SuspectList)
    listed.write(prepared.config.out / "suspects.csv")
    if not found.suspects:
        log.info("No image looks poisoned: none is left out, and the first teacher is the student's.")
    gone = Counter(image.label for image in listed.images if image.suspect)
    kept = {label: count - gone[label] for label, count in outcome.kept.items()}
    return replace(outcome, suspects=found, kept=kept)


def _untrainable(kept: dict[str, int]) -> str:
    """Say why no classifier can be trained on the images that are left; empty if one can."""
    gone = [label for label, count in kept.items() if count <= 0]
    if not gone:
        return ""
    return (
        f"Every image of {', '.join(gone[:10])} is listed as a suspect, so no classifier can be trained on what is "
        "left. Look at these images first: keep some by editing suspects.json and give the same command again, or "
        "take the class out of the data."
    )


def _left_out(prepared: Prepared, outcome: Outcome) -> frozenset[str]:
    suspects = outcome.suspects.keys if outcome.suspects is not None else frozenset()
    return suspects | frozenset(prepared.found.unreadable)


def _self_test_place(out: Path) -> Path:
    """The outcome of the self-test. Its folder has the same name without the suffix."""
    return out / "work" / "self-test.json"


def _self_tested(prepared: Prepared, chain: Chain, outcome: Outcome, runner: Runner) -> SelfTest:
    """Measure how the same settings affect triggers of our own on this data."""
    plan, place = prepared.plan, _self_test_place(prepared.config.out)
    if not plan.self_test or not outcome.trained:
        return SelfTest(skipped=plan.no_self_test or "there is no student whose way could be tried.")
    left_out = _left_out(prepared, outcome)

    def work() -> None:
        folder = place.with_suffix("")
        write_whole(place, json_text(self_test(chain, left_out, plan.self_test, folder, runner.hands)).encode())

    of: dict[str, Any] = settings_of_test(chain) | {"data": chain.digest, "images": plan.self_test}
    runner.do(SELF_TEST, work, place, of | {"left out": sorted(left_out)})
    return from_json(SelfTest, read_json(place))


def _cleaned(prepared: Prepared, places: Places, outcome: Outcome, runner: Runner) -> Path | None:
    """Write the cleaned data set. Originals that nobody has judged are not called clean, so they are not written."""
    config = prepared.config
    unjudged = config.cleaned == "originals" and outcome.suspects is None
    kind = "none" if unjudged else config.cleaned
    if kind == "none":
        outputs.remove_cleaned(config.out)
    left_out = _left_out(prepared, outcome)
    return outputs.write_kept(kind, config.data, prepared.found.digest, config.out, places.variations, left_out, runner)
