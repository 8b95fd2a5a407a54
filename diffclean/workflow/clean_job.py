"""The job of `clean` as a chain of steps, with the places of their outcomes and what they achieve."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from diffclean.report.facts import GateCheck, SelfTest
from diffclean.training.loop_config import LoopConfig
from diffclean.training.recipes import RECIPES
from diffclean.workflow.chain_config import Chain, Places
from diffclean.workflow.measured import Evaluations
from diffclean.workflow.prepare import Prepared, look_settings_of, settings_of
from diffclean.workflow.steps import Distilling, Teaching
from diffclean.workflow.suspects import FoundSuspects

if TYPE_CHECKING:
    from diffclean.training.mirrored import Mirrored


@dataclass(frozen=True)
class Outcome:
    """What the steps achieved.

    Attributes:
        suspects: the suspects that were found. None: there was no search.
        trained: whether a student was trained.
        measured: the measurements of the classifiers and variations.
        self_test: the result of the self-test. None: it is not known whether there was one.
        gate: the limits that were set.
        mirrored: what a classifier makes of mirrored images. None: this was not measured.
        cannot: what could not be done and why, in sentences.
        cleaned: the cleaned data set. None: it was not asked for.
        kept: label -> how many images are not left out.
    """

    suspects: FoundSuspects | None = None
    trained: bool = False
    measured: Evaluations = field(default_factory=Evaluations)
    self_test: SelfTest | None = None
    gate: tuple[GateCheck, ...] = ()
    mirrored: Mirrored | None = None
    cannot: tuple[str, ...] = ()
    cleaned: Path | None = None
    kept: dict[str, int] = field(default_factory=dict)


def chain_of(prepared: Prepared, mirrored: Mirrored | None) -> Chain:
    """Return the chain of steps with every decision that was made.

    Args:
        prepared: the job.
        mirrored: see `Outcome`.
    """
    config, plan = prepared.config, prepared.plan
    recipe = RECIPES[plan.recipe]
    flip = config.flip or (recipe["flip"] if mirrored is None or mirrored.harmless else "none")
    loop = LoopConfig(
        epochs=plan.epochs,
        batch_size=plan.batch_size,
        optimizer=recipe["optimizer"],
        schedule=recipe["schedule"],
        flip=flip,
        shift=recipe["shift"],
        augment=config.augment,
        seed=config.seed,
        device=config.device,
        tensorboard=False,
    )
    student_loop = replace(loop, epochs=plan.student_epochs)
    return Chain(
        data=config.data,
        teaching=Teaching(plan.arch, loop, plan.size),
        distilling=Distilling(plan.arch, student_loop, size=plan.size),
        settings=settings_of(config, plan.variations),
        detector=config.detector if plan.searches else None,
        look_settings=look_settings_of(config),
        passes=plan.passes,
        test=config.test,
        poison=_manifest(config.poison),
        seed=config.seed,
        device=config.device,
        teacher=config.teacher,
        measures_variations=True,
        digest=prepared.found.digest,
        test_digest=prepared.test.digest if prepared.test is not None else "",
    )


def places_of(out: Path) -> Places:
    """Return the places of the outcomes: what users look for in the folder itself, the rest in `work`."""
    return replace(
        Places.below(out / "work"), suspects=out / "suspects.json", evaluation=out / "work" / "evaluation.json"
    )


def _manifest(poison: Path | None) -> Path | None:
    """Return the file of the poison manifest; `poison` may be the data set that contains it."""
    if poison is None:
        return None
    from diffclean.attacks.manifest import manifest_in

    return manifest_in(poison)
