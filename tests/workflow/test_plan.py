"""What `clean` decides where nobody says, and what it gives up for a budget."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from diffclean.errors import DiffcleanError, UsageError
from diffclean.workflow.budget import BudgetError, planned, within_budget
from diffclean.workflow.clean_config import CleanConfig, seconds_of
from diffclean.workflow.costs import Costs, training_pace
from diffclean.workflow.look_first import Looked
from diffclean.workflow.plan import Plan, duration, first_plan

CONFIG = CleanConfig(Path("data"), Path("out"))
COSTS = Costs(
    training_s=1e-3,
    searching_s=5e-4,
    variation_s=0.05,
    variation_bytes=2000,
    engine="abc/openvino/fp32",
    mirrored_s=5e-4,
)


def found(images: int, side: int, classes: int = 10, sizes: int = 1) -> Looked:
    each = dict.fromkeys((f"class {number}" for number in range(classes)), images // classes)
    shapes = {f"{side + extra}x{side + extra}": 1 for extra in range(sizes)}
    return Looked("data", "", "", [], images, 1000 * images, each, shapes, side, side + sizes - 1, {}, 0, 0, 0)


def test_small_images_are_taken_as_they_are_and_large_ones_resized() -> None:
    small, large = first_plan(CONFIG, found(5000, 32), False), first_plan(CONFIG, found(5000, 500, sizes=3), False)
    assert (small.size, small.arch) == (None, "airnet")
    assert (large.size, large.arch) == (128, "resnet18")
    assert first_plan(CONFIG, found(5000, 500, sizes=3), True).size == 224
    assert first_plan(CONFIG, found(5000, 30, sizes=3), False).size == 32
    asked = replace(CONFIG, arch="wrn-16-1", size=48, epochs=3, variations=7)
    plan = first_plan(asked, found(5000, 500), False)
    assert (plan.arch, plan.size, plan.epochs, plan.variations) == ("wrn-16-1", 48, 3, 7)


def test_few_images_are_seen_more_often_and_in_more_variations() -> None:
    few, many = first_plan(CONFIG, found(500, 32), False), first_plan(CONFIG, found(100_000, 32), False)
    assert few.epochs > many.epochs
    assert few.variations > many.variations
    assert few.batch_size < many.batch_size


def test_too_few_images_are_not_trained_on() -> None:
    plan = first_plan(CONFIG, found(100, 300, classes=100), False)
    assert not plan.trains
    assert not plan.searches
    assert not plan.passes
    assert not plan.self_test
    assert len(plan.cannot) == 2
    enough = first_plan(CONFIG, found(100, 32, classes=10), False)
    assert enough.trains
    assert not enough.searches, "ten images a class are fewer than a detector needs"


def test_the_time_of_the_default_detector_is_not_that_of_another() -> None:
    data, other = found(5000, 32), replace(CONFIG, detector="spectral")
    default, asked = (within_budget(first_plan(each, data, False), each, data, COSTS) for each in (CONFIG, other))
    assert default.seconds["suspects"] > 60
    assert "suspects" not in asked.seconds


def test_a_budget_takes_the_self_test_first_and_epochs_last() -> None:
    data = found(5000, 32)
    whole = within_budget(first_plan(CONFIG, data, False), CONFIG, data, COSTS)
    gave_up = []
    for share in (0.9, 0.55, 0.45, 0.35):
        config = replace(CONFIG, budget_s=share * whole.total_s)
        plan = within_budget(first_plan(config, data, False), config, data, COSTS)
        assert plan.total_s <= config.budget_s
        gave_up.append(len(plan.gave_up))
    assert gave_up == [1, 2, 3, 4]
    assert plan.epochs < whole.epochs
    assert (plan.self_test, plan.passes) == (0, 0)
    assert plan.no_self_test


def test_classifiers_see_smaller_images_where_nothing_else_is_left() -> None:
    data = found(5000, 128)

    def costs_of(plan: Plan) -> Costs:
        return replace(COSTS, training_s=COSTS.training_s * ((plan.size or 128) / 32) ** 2)

    whole = planned(CONFIG, data, False, costs_of)
    assert (whole.size, whole.gave_up) == (128, [])
    config = replace(CONFIG, budget_s=whole.total_s / 8)
    plan = planned(config, data, False, costs_of)
    assert plan.total_s <= whole.total_s / 8
    assert (plan.size, plan.arch) == (64, "airnet")
    assert plan.gave_up[0] == "Classifiers see the images at 64 px and not at 128 px."
    with pytest.raises(BudgetError, match="even if everything is left out that can be"):
        planned(replace(config, size=128), data, False, costs_of)


def test_a_busy_machine_leaves_less_of_a_budget() -> None:
    data = found(5000, 32)
    config = replace(CONFIG, budget_s=1.1 * within_budget(first_plan(CONFIG, data, False), CONFIG, data, COSTS).total_s)
    idle = within_budget(first_plan(config, data, False), config, data, COSTS)
    busy = within_budget(first_plan(config, data, False), config, data, replace(COSTS, busy=3.0))
    assert len(busy.gave_up) > len(idle.gave_up)
    assert busy.total_s <= idle.total_s / 2


def test_the_pace_is_that_of_a_machine_that_does_nothing_else(tiny_archs: None) -> None:
    pace = training_pace("tiny", 16, 3, 8, "cpu")
    assert pace.seconds > 0
    assert pace.busy >= 1


def test_what_was_asked_for_is_never_given_up() -> None:
    data = found(5000, 32)
    config = replace(CONFIG, epochs=20, variations=2, self_test=True, budget_s=60)
    with pytest.raises(DiffcleanError, match="even if everything is left out that can be; the budget is 60 s"):
        within_budget(first_plan(config, data, False), config, data, COSTS)


def test_a_long_self_test_is_done_only_where_it_is_asked_for() -> None:
    data, slow = found(5000, 32), replace(COSTS, training_s=0.1, searching_s=0.05)
    plan = within_budget(first_plan(CONFIG, data, False), CONFIG, data, slow)
    assert plan.self_test < 2000
    for asked in (replace(CONFIG, self_test=True), replace(CONFIG, max_asr=5.0), replace(CONFIG, max_loss=3.0)):
        assert within_budget(first_plan(asked, data, False), asked, data, slow).self_test == 2000


def test_a_budget_leaves_the_self_test_that_a_limit_needs() -> None:
    data, config = found(5000, 32), replace(CONFIG, max_asr=5.0)
    whole = within_budget(first_plan(config, data, False), config, data, COSTS)
    tight = replace(config, budget_s=whole.total_s * 0.7)
    assert within_budget(first_plan(tight, data, False), tight, data, COSTS).self_test
    free = replace(tight, max_asr=None)
    assert not within_budget(first_plan(free, data, False), free, data, COSTS).self_test


@pytest.mark.parametrize(
    ("text", "seconds"), [("2h", 7200), ("90m", 5400), ("1h30m", 5400), ("1.5h", 5400), ("45", 45)]
)
def test_times_are_written_as_people_do(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "2 parsecs", "-1h", "0"])
def test_other_times_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is no time"):
        seconds_of(text)


def test_durations_are_told_in_one_unit() -> None:
    assert [duration(seconds) for seconds in (40, 700, 12_600)] == ["40 s", "12 min", "3.5 h"]
