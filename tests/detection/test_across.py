"""Poison in every label: what is found across labels, and what is not mistaken for it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from bars import CLASSES, Bars, draw_bars, exchanged

from diffclean.detection.across import Contradiction, look_across
from diffclean.detection.looks import look


def found_in(drawn: Bars) -> Contradiction | None:
    bench, labels, chosen = drawn.bench(), torch.from_numpy(drawn.labels), torch.arange(len(drawn.labels))
    seen = look(bench, labels, chosen, CLASSES, seed=1)
    return look_across(bench, labels, chosen, seen, CLASSES, seed=2)


@pytest.mark.slow
def test_labels_that_are_wrong_by_a_rule_are_poisoned() -> None:
    drawn = exchanged(draw_bars())
    found = found_in(drawn)
    assert found is not None
    assert found.is_poisoned
    assert found.kept < 0.1
    assert found.followed > 0.8
    assert drawn.poisoned[found.group.members].mean() > 0.95
    assert np.abs(found.difference[:, -3:, -3:]).mean() > 3 * np.abs(found.difference[:, :-3, :-3]).mean()


@pytest.mark.slow
@pytest.mark.parametrize("marked", [False, True])
def test_labels_that_are_wrong_at_random_are_not_poisoned(marked: bool) -> None:
    """A careless annotator is no attacker, even if all of the work bears a stamp."""
    drawn = draw_bars()
    rng = np.random.default_rng(5)
    wrong = rng.permutation(len(drawn.labels))[:90]
    drawn.labels[wrong] = (drawn.labels[wrong] + rng.integers(1, CLASSES, len(wrong))) % CLASSES
    if marked:
        drawn.images[wrong, -3:, -3:] = [255, 255, 0]
    found = found_in(drawn)
    assert found is None or not found.is_poisoned
