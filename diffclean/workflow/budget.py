"""Estimates what a plan costs, and reduces the plan until it fits a budget."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from diffclean.detection.find import DEFAULT_DETECTOR
from diffclean.errors import DiffcleanError
from diffclean.training.recipes import FAST, STANDARD
from diffclean.workflow.clean_config import CleanConfig
from diffclean.workflow.costs import Costs
from diffclean.workflow.look_first import Looked
from diffclean.workflow.plan import SMALL_SIDE, Plan, duration, first_plan, student_epochs

ATTACKS_TRIED = 3
_SEARCHES = 300_000
"""Images that the default detector shows to its networks, about, whatever the size of the data set."""
_MIRRORED = 12_000
"""Images that the look at mirrored images shows to its network, about, and fewer where there are few."""
_MIRRORED_EPOCHS = 12
_LOOKING = 0.7
"""Two classifiers answer an image in this share of the time that one takes to train on it, about."""
_LEAST_EPOCHS = {STANDARD: 8, FAST: 4}
_SMALL_SELF_TEST = 600
_SELF_TEST_S = 1200.0
"""Seconds that a self-test may take where nobody asked for one and no budget was given."""


def priced(plan: Plan, config: CleanConfig, found: Looked, costs: Costs) -> Plan:
    """Return the plan with the time and the disk space that it is expected to take."""
    searching_s = _searching_s(plan, config, costs)
    mirrored = min(_MIRRORED, _MIRRORED_EPOCHS * found.images) if plan.trains and config.looks_at_mirrored else 0
    seconds = {"mirrored-images": mirrored * costs.mirrored_s}
    seconds |= _chain_seconds(plan, found.images, costs, searching_s, config.teacher is None)
    if config.budget_s is not None:  # Passes that find something train again.
        seconds["second-pass"] += plan.passes * seconds["teacher-anew"]
    if plan.self_test:
        seconds["self-test"] = ATTACKS_TRIED * sum(
            _chain_seconds(plan, plan.self_test, costs, searching_s, True).values()
        )
    made = found.images * plan.variations * costs.variation_bytes
    tried = ATTACKS_TRIED * plan.self_test * (plan.variations + 2) * costs.variation_bytes
    return replace(
        plan,
        seconds={step: round(taken, 1) for step, taken in seconds.items() if taken},
        bytes=round(made + tried + 3 * 2**20),
        engine=costs.engine,
        busy=round(costs.busy, 2),
    )


def _searching_s(plan: Plan, config: CleanConfig, costs: Costs) -> float:
    """Return the seconds of the default detector. What another one takes is not known, and not counted."""
    known = plan.searches and config.detector == DEFAULT_DETECTOR
    return _SEARCHES * costs.searching_s if known else 0.0


def _chain_seconds(plan: Plan, images: int, costs: Costs, searching_s: float, trains_first: bool) -> dict[str, float]:
    teaching = images * plan.epochs * costs.training_s * plan.trains
    return {
        "teacher": teaching * trains_first,
        "suspects": searching_s,
        "teacher-anew": teaching * plan.searches,
        "second-pass": _LOOKING * images * costs.training_s * min(1, plan.passes),
        "variations": images * plan.variations * costs.variation_s,
        "student": 1.2 * images * plan.student_epochs * costs.training_s * plan.trains,
    }


class BudgetError(DiffcleanError):
    """Even the smallest plan takes longer than the budget."""


def planned(config: CleanConfig, found: Looked, has_gpu: bool, costs_of: Callable[[Plan], Costs]) -> Plan:
    """Return the plan that fits the budget, with smaller images for the classifiers if nothing else is left to give up.

    Args:
        config: what was asked for.
        found: what the data set contains.
        has_gpu: whether classifiers are trained on a GPU.
        costs_of: measures what a plan costs on this machine.

    Raises:
        BudgetError: even the smallest plan takes longer.
    """
    plan = first_plan(config, found, has_gpu)
    try:
        return within_budget(plan, config, found, costs_of(plan))
    except BudgetError:
        if config.size is not None or plan.size is None or plan.size <= SMALL_SIDE:
            raise
        said = f"Classifiers see the images at {SMALL_SIDE} px and not at {plan.size} px."
        small = replace(first_plan(replace(config, size=SMALL_SIDE), found, has_gpu), gave_up=[said])
        return within_budget(small, config, found, costs_of(small))


def within_budget(plan: Plan, config: CleanConfig, found: Looked, costs: Costs) -> Plan:
    """Return the plan, reduced until it fits the budget; `gave_up` says what was given up.

    Without a budget, only a self-test that nobody asked for is given up, and only if it would take long.

    Raises:
        BudgetError: even the smallest plan takes longer.
    """
    plan = priced(plan, config, found, costs)
    if config.budget_s is None:
        return _without_long_test(plan, config, found, costs)
    limit_s = config.budget_s / costs.busy
    for cut in _CUTS:
        if plan.total_s <= limit_s:
            break
        smaller = cut(plan, config)
        if smaller is not None:
            plan = priced(smaller, config, found, costs)
    if plan.total_s > limit_s:
        raise BudgetError(
            f"The job takes about {duration(plan.total_s * costs.busy)} on this machine, even if everything is left "
            f"out that can be; the budget is {duration(config.budget_s)}.",
            "Give a larger `budget`, fewer images, or a machine with a GPU.",
        )
    return plan


def _without_long_test(plan: Plan, config: CleanConfig, found: Looked, costs: Costs) -> Plan:
    if config.keeps_self_test or plan.seconds.get("self-test", 0) <= max(_SELF_TEST_S, plan.total_s / 2):
        return plan
    small = priced(replace(plan, self_test=min(plan.self_test, _SMALL_SELF_TEST)), config, found, costs)
    if small.seconds["self-test"] <= max(_SELF_TEST_S, small.total_s / 2):
        return small
    why = f"it would take {duration(small.seconds['self-test'])}; ask for it with --self-test."
    return priced(replace(plan, self_test=0, no_self_test=why), config, found, costs)


Cut = Callable[[Plan, CleanConfig], Plan | None]


def _smaller_test(plan: Plan, config: CleanConfig) -> Plan | None:
    if plan.self_test <= _SMALL_SELF_TEST:
        return None
    said = f"The self-test is done on {_SMALL_SELF_TEST} images and not on {plan.self_test}."
    return replace(plan, self_test=_SMALL_SELF_TEST, gave_up=[*plan.gave_up, said])


def _fewer_variations(plan: Plan, config: CleanConfig) -> Plan | None:
    if config.variations is not None or plan.variations == 1:
        return None
    said = f"Each image has one variation and not {plan.variations}."
    return replace(plan, variations=1, gave_up=[*plan.gave_up, said])


def _no_second_pass(plan: Plan, config: CleanConfig) -> Plan | None:
    if not plan.passes or config.second_pass:
        return None
    said = "Nobody looks for suspects that the detector missed."
    return replace(plan, passes=0, gave_up=[*plan.gave_up, said])


def _half_the_epochs(plan: Plan, config: CleanConfig) -> Plan | None:
    fewer = max(_LEAST_EPOCHS[plan.recipe], plan.epochs // 2)
    if config.epochs is not None or fewer >= plan.epochs:
        return None
    said = f"Classifiers are trained for {fewer} epochs only."
    kept = [line for line in plan.gave_up if not line.startswith("Classifiers are trained for")]
    return replace(plan, epochs=fewer, student_epochs=student_epochs(fewer), gave_up=[*kept, said])


def _no_test(plan: Plan, config: CleanConfig) -> Plan | None:
    if not plan.self_test or config.keeps_self_test:
        return None
    said = "There is no self-test."
    kept = [line for line in plan.gave_up if not line.startswith("The self-test")]
    return replace(plan, self_test=0, no_self_test="the budget left no time for it.", gave_up=[*kept, said])


_CUTS: tuple[Cut, ...] = (
    _smaller_test,
    _no_test,
    _fewer_variations,
    _no_second_pass,
    _half_the_epochs,
    _half_the_epochs,
    _half_the_epochs,
)
"""What is given up first stands first."""
