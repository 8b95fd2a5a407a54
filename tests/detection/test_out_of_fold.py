"""Doubts about labels, out of fold: on shapes under a glow that edges do not show, and on doubts made by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from threading import Event

import numpy as np
import pytest
import torch
from poisoned_shapes import TARGET, PoisonedShapes, glow, poison_shapes

from diffclean.detection.out_of_fold import OutOfFold, judged_doubts
from diffclean.errors import Interrupted, UsageError
from diffclean.evaluation.metrics import auroc
from diffclean.progress import NoProgress

RNG = np.random.default_rng(0)
LABELS = np.repeat([0, 1], 500)


@pytest.mark.slow
def test_labels_that_do_not_fit_are_listed_where_the_view_hides_the_trigger(tmp_path: Path) -> None:
    shapes = poison_shapes(tmp_path / "data", glow)
    found = OutOfFold(views=("edges",), rounds=2, visits=10_000).judge(shapes.evidence, NoProgress())
    assert auroc(found.scores[shapes.poisoned], found.scores[~shapes.poisoned]) > 0.95
    assert found.suspects[shapes.poisoned].mean() > 0.9
    assert found.suspects[~shapes.poisoned].mean() < 0.05
    judged = found.classes[TARGET]
    assert judged.separation > judged.limit
    assert "look through edges" in judged.why


def test_a_view_that_sees_two_groups_outvotes_those_that_see_one() -> None:
    """A view that shows the trigger has no doubts about poisoned images; it must not speak for them."""
    doubts = RNG.normal(-3, 1, (2, 1000))
    poisoned = np.arange(1000) < 100
    doubts[0, poisoned] += 8
    doubts[1, poisoned] -= 2
    found = judged_doubts(doubts, LABELS, ["a", "b"], ["hiding", "showing"])
    assert (found.suspects == poisoned).mean() > 0.99
    assert auroc(found.scores[poisoned], found.scores[~poisoned]) > 0.99
    assert [(one.images, one.suspects > 0) for one in found.classes] == [(500, True), (500, False)]
    assert "look through hiding and" in found.classes[0].why
    assert found.classes[1].why == "In every view, the doubts about its labels form one group."


def test_classes_are_comparable_though_one_is_harder_to_tell() -> None:
    doubts = RNG.normal(-8, 0.5, (1, 1000))
    doubts[0, LABELS == 1] = RNG.normal(1, 2, 500)
    poisoned = np.arange(1000) < 50
    doubts[0, poisoned] = RNG.normal(1, 0.5, 50)
    found = judged_doubts(doubts, LABELS, ["easy", "hard"], ["edges"])
    assert auroc(doubts[0, poisoned], doubts[0, ~poisoned]) < 0.8
    assert auroc(found.scores[poisoned], found.scores[~poisoned]) > 0.99


def test_few_images_are_never_parted_and_those_without_a_label_not_judged() -> None:
    doubts = np.array([[0.0, 0.1, -0.1, 9.0, 9.1, 50.0]])
    found = judged_doubts(doubts, np.array([0, 0, 0, 0, 0, -1]), ["a", "b"], ["edges"])
    assert not found.suspects.any()
    assert found.scores[5] == 0
    assert [(one.images, one.too_few) for one in found.classes] == [(5, True), (0, True)]


def test_one_class_alone_is_refused_and_a_stop_is_heard(clean_shapes: PoisonedShapes) -> None:
    images = clean_shapes.evidence.images
    one = replace(clean_shapes.evidence, images=images.chosen(torch.where(images.labels == 0)[0]))
    with pytest.raises(UsageError, match="one class only"):
        OutOfFold().judge(one, NoProgress())
    stop = Event()
    stop.set()
    with pytest.raises(Interrupted):
        OutOfFold().judge(replace(clean_shapes.evidence, stop=stop), NoProgress())
