"""Spectral signatures, on a class a fifth of which is poisoned."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from poisoned_shapes import PoisonedShapes

from diffclean.detection.registry import get
from diffclean.detection.spectral import Spectral
from diffclean.evaluation.metrics import auroc
from diffclean.progress import NoProgress


def test_poisoned_images_stick_out_of_their_class(checkered_shapes: PoisonedShapes) -> None:
    found = get("spectral").judge(checkered_shapes.evidence, NoProgress())
    target, poisoned = checkered_shapes.target, checkered_shapes.poisoned
    assert auroc(found.scores[poisoned], found.scores[target & ~poisoned]) > 0.9
    assert found.suspects[poisoned].mean() > 2 * found.suspects[target & ~poisoned].mean()


def test_of_every_class_the_same_share_is_listed_as_the_paper_says(clean_shapes: PoisonedShapes) -> None:
    found = Spectral(epsilon=0.04).judge(clean_shapes.evidence, NoProgress())
    assert [(one.images, one.suspects) for one in found.classes] == [(100, 6)] * 3
    assert "the teacher's penultimate layer" in found.classes[0].why
    labels = clean_shapes.evidence.images.labels.numpy()
    for number in range(3):
        own, listed = found.scores[labels == number], found.suspects[labels == number]
        assert own[listed].min() >= own[~listed].max()


def test_a_teacher_that_cannot_be_looked_into_is_asked_for_its_logits(checkered_shapes: PoisonedShapes) -> None:
    teacher = checkered_shapes.evidence.teacher
    assert teacher is not None
    network = teacher.network
    closed = replace(teacher, network=lambda images: network(images))
    found = get("spectral").judge(replace(checkered_shapes.evidence, teacher=closed), NoProgress())
    assert "the teacher's centred logits" in found.classes[0].why
    assert np.isfinite(found.scores).all()


def test_scores_are_projections_on_the_first_singular_vector(clean_shapes: PoisonedShapes) -> None:
    """Against numpy's own decomposition."""
    from diffclean.detection.features import penultimate

    evidence = clean_shapes.evidence
    assert evidence.teacher is not None
    features, _ = penultimate(evidence.teacher, evidence.images, evidence.device)
    own = features[evidence.images.labels.numpy() == 1].astype(np.float64)
    centred = own - own.mean(0)
    expected = (centred @ np.linalg.svd(centred)[2][0]) ** 2
    found = get("spectral").judge(evidence, NoProgress())
    assert found.scores[evidence.images.labels.numpy() == 1] == pytest.approx(expected, rel=0.05, abs=0.01)
