"""Susceptibility to denoising, on a class a fifth of which carries a checker."""

from __future__ import annotations

from dataclasses import replace
from threading import Event

import pytest
import torch
from poisoned_shapes import TARGET, PoisonedShapes

from diffclean.detection.denoised import denoised
from diffclean.detection.registry import get
from diffclean.errors import Interrupted
from diffclean.evaluation.metrics import auroc
from diffclean.progress import NoProgress


def test_images_whose_answer_hangs_on_a_checker_are_listed(checkered_shapes: PoisonedShapes) -> None:
    found = get("denoised").judge(checkered_shapes.evidence, NoProgress())
    target, poisoned = checkered_shapes.target, checkered_shapes.poisoned
    assert auroc(found.scores[poisoned], found.scores[target & ~poisoned]) > 0.95
    assert found.suspects[poisoned].mean() > 0.9
    judged = found.classes[TARGET]
    assert judged.separation > judged.limit
    assert f"answers to {judged.suspects} of the {judged.images} images" in judged.why


def test_what_is_added_to_all_logits_of_a_picture_changes_no_score(checkered_shapes: PoisonedShapes) -> None:
    """It changes no answer either, and denoising changes the grey of the corner that is added here."""
    evidence = checkered_shapes.evidence
    teacher = evidence.teacher
    assert teacher is not None
    lifted = replace(teacher, network=lambda images: teacher.network(images) + 9 * images[:, :, 0, 0].sum(1)[:, None])
    found = get("denoised").judge(replace(evidence, teacher=lifted), NoProgress())
    expected = get("denoised").judge(evidence, NoProgress())
    assert found.scores == pytest.approx(expected.scores, abs=1e-3)


def test_the_median_takes_single_pixels_away_and_the_blur_spreads_them() -> None:
    image = torch.zeros(1, 3, 9, 9)
    image[:, :, 4, 4] = 1
    median, blurred = denoised(image)
    assert not median.any()
    assert 0.1 < float(blurred[0, 0, 4, 4]) < 0.3
    torch.testing.assert_close(blurred.sum(), image.sum())
    flat = torch.full((1, 3, 9, 9), 0.3)
    for variant in denoised(flat):
        torch.testing.assert_close(variant, flat)


def test_it_stops_when_told(checkered_shapes: PoisonedShapes) -> None:
    stop = Event()
    stop.set()
    with pytest.raises(Interrupted):
        get("denoised").judge(replace(checkered_shapes.evidence, stop=stop), NoProgress())
