"""The self-test: measures what this pipeline does on this data by adding triggers of our own to a part of it."""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from diffclean.attacks.base import Labels
from diffclean.attacks.manifest import MANIFEST_FILE
from diffclean.attacks.registry import get
from diffclean.data.atomic import WriteError, make_folders, write_whole
from diffclean.data.item import Item
from diffclean.data.json_file import read_json
from diffclean.data.registry import open_source
from diffclean.datasets.samples import digest_of
from diffclean.errors import DiffcleanError, Interrupted
from diffclean.evaluation.evaluate import Evaluation
from diffclean.report.facts import Measured, SelfTest, SelfTestRow
from diffclean.report.reading import from_json
from diffclean.results import json_text
from diffclean.workflow import made_of
from diffclean.workflow.chain import ChainResult, run_chain
from diffclean.workflow.chain_config import Chain, Places
from diffclean.workflow.cleaned import put
from diffclean.workflow.ledger import Ledger
from diffclean.workflow.runner import Runner
from diffclean.workflow.steps import Hands

log = logging.getLogger(__name__)

ATTACKS = ("badnets", "blended", "sig")
"""A patch; a blended picture; a faint wave, which is unlike all that `micro` was trained to take away."""
RATE = 0.1
_TESTED = 5
"""Where there is no test set, one image in so many is held back from the sample."""
_MOST_TESTED = 2000
"""Images of a test set that are used at most: rates are then known to within two points or better, and each attack
classifies the test set several times."""


@dataclass(frozen=True)
class Sample:
    """The part of the data that is poisoned.

    Attributes:
        train: the folder of the images that are trained on.
        test: clean images to which the triggers are added; a part of each class where the test set is large.
        images: the number of images in `train`.
        held_back: whether `test` was taken from the suspect data, so that its labels are suspect too.
        target: the target class of the triggers.
        digest: a sha256 of what was chosen.
    """

    train: Path
    test: Path
    images: int
    held_back: bool
    target: str
    digest: str


def self_test(chain: Chain, left_out: Iterable[str], images: int, work: Path, hands: Hands) -> SelfTest:
    """Poison a sample with each trigger, and process it like the data.

    Args:
        chain: the steps that the data went through. The sample gets the same settings.
        left_out: the keys of images that are not taken: suspects, and images that cannot be read.
        images: the number of images in the sample.
        work: a folder for the self-test. Files that are no longer needed are removed.
        hands: the progress and the stop event.

    Raises:
        DiffcleanError: a step cannot be done.
        Interrupted: the work was asked to stop; the same call continues it.
    """
    make_folders(work)
    sample = draw(chain, frozenset(left_out), images, work)
    runner = Runner(hands, ledger=Ledger(work))
    rows = []
    for attack in ATTACKS:
        outcome = work / f"{attack}.json"

        def work_on(attack: str = attack, outcome: Path = outcome) -> None:
            log.info("Self-test: %s on %d images.", attack, sample.images)
            write_whole(outcome, json_text(_row(attack, chain, sample, work / attack, hands)).encode())
            shutil.rmtree(work / attack, ignore_errors=True)

        runner.do(attack, work_on, outcome, settings_of(chain) | {"sample": sample.digest, "attack": attack})
        rows.append(from_json(SelfTestRow, read_json(outcome)))
    return SelfTest(tuple(rows), sample.images)


def settings_of(chain: Chain) -> dict[str, Any]:
    """Return the settings of a chain that decide the outcome of its self-test, beside the sample, as JSON values."""
    return {
        "teacher": made_of.teacher("", chain.teaching),
        "student": made_of.student("", None, chain.settings, chain.distilling, ()),
        "suspects": made_of.suspects(
            "", chain.detector or "", chain.seed, None, chain.look_settings, chain.teaching.size
        ),
        "passes": chain.passes,
        "test": chain.test_digest,
        "tested": _MOST_TESTED,
    }


def draw(chain: Chain, left_out: frozenset[str], images: int, work: Path) -> Sample:
    """Put some images of each class into a folder; chosen by their names, so that they are always the same."""
    chosen = _classes(chain.data, left_out)
    train, test = work / "train", work / "test"
    kept = _part_of(chosen, images)
    held_back = [] if chain.test is not None else _to_test(kept)
    apart = {item.key for item in held_back}
    shutil.rmtree(train, ignore_errors=True)
    _link((item for item in kept if item.key not in apart), chain.data, train)
    shutil.rmtree(test, ignore_errors=True)
    if chain.test is None:
        _link(held_back, chain.data, test)
    else:
        _link(_part_of(_classes(chain.test), _MOST_TESTED), chain.test, test)
    target = max(chosen, key=lambda label: len(chosen[label]))
    digest = digest_of((chain.digest, item.key, str(item.key in apart)) for item in kept)
    return Sample(train, test, len(kept) - len(apart), bool(apart), target, digest)


def _classes(data: Path, left_out: frozenset[str] = frozenset()) -> dict[str, list[Item]]:
    """The images of each class that can be read."""
    found: dict[str, list[Item]] = {}
    for item in open_source(data).items():
        if item.key not in left_out and item.problem is None:
            found.setdefault(item.label, []).append(item)
    return found


def _part_of(classes: dict[str, list[Item]], images: int) -> list[Item]:
    """About so many images, the same share of each class, two of each at least."""
    share = min(1.0, images / max(1, sum(map(len, classes.values()))))
    part: list[Item] = []
    for items in classes.values():
        ordered = sorted(items, key=lambda item: hashlib.sha256(item.key.encode("utf-8", "surrogatepass")).digest())
        part += ordered[: max(2, round(share * len(items)))]
    return part


def _to_test(kept: list[Item]) -> list[Item]:
    """A part of the images of each class, which are not trained on; none of a class that has one image."""
    part: list[Item] = []
    for _, items in groupby(kept, key=lambda item: item.label):
        part += list(items)[1::_TESTED]
    return part


def _link(items: Iterable[Item], data: Path, out: Path) -> None:
    source = open_source(data)
    for item in items:
        put(source, item, out)


def _row(attack: str, chain: Chain, sample: Sample, work: Path, hands: Hands) -> SelfTestRow:
    """Try one trigger. An attack that cannot be made with this data is reported in the row and not raised."""
    empty = SelfTestRow(attack, RATE, get(attack).like_corruptions)
    try:
        done = _tried(attack, chain, sample, work, hands)
    except (Interrupted, WriteError):
        raise  # This says nothing about the attack, and the same command tries it again.
    except DiffcleanError as error:
        log.warning("Self-test: %s could not be tried: %s", attack, error.message)
        return replace(empty, note=f"It could not be tried: {error.message}")
    assert done.teacher is not None
    assert done.student is not None
    figures = done.suspects.against_manifest if done.suspects is not None else None
    return replace(
        empty,
        fired=done.student.fired,
        recall=figures.recall if figures is not None else None,
        false_positive_rate=figures.false_positive_rate if figures is not None else None,
        before=measured_of(done.teacher),
        after=measured_of(done.student),
        note="Measured on images that were held back of the suspect data." if sample.held_back else "",
    )


def _tried(attack: str, chain: Chain, sample: Sample, work: Path, hands: Hands) -> ChainResult:
    from diffclean.attacks.plan import training_plan
    from diffclean.attacks.poison import write

    make_folders(work)
    runner = Runner(hands, ledger=Ledger(work))
    poisoned = work / "poisoned"

    def poison() -> None:
        shutil.rmtree(poisoned, ignore_errors=True)
        # SIG is a clean-label attack, which needs more images of the target class than a sample has.
        plan = training_plan(sample.train, attack, RATE, sample.target, chain.seed, labels=Labels.ALL_TO_ONE)
        write(plan, poisoned, hands.progress, hands.stop)

    manifest = poisoned / MANIFEST_FILE
    runner.do("poison", poison, manifest, {"sample": sample.digest, "attack": attack, "rate": RATE, "seed": chain.seed})
    places = replace(Places.below(work), evaluation=work / "evaluation.json")
    trial = replace(
        chain,
        data=poisoned,
        test=sample.test,
        poison=manifest,
        teacher=None,
        measures_variations=False,
        digest=digest_of([(sample.digest, attack)]),
    )
    return run_chain(trial, places, runner)


def measured_of(found: Evaluation) -> Measured:
    """Return the measurements of one classifier in the form that the report uses."""
    return Measured(
        found.clean_accuracy, found.attack_success_rate, found.robust_accuracy, benign_landing=found.benign_landing
    )
