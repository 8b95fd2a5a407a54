"""Activation clustering, on a class a fifth of which is poisoned."""

from __future__ import annotations

from dataclasses import replace

import torch
from poisoned_shapes import TARGET, PoisonedShapes

from diffclean.detection.clustering import Clustering
from diffclean.detection.registry import get
from diffclean.progress import NoProgress


def test_the_smaller_cluster_of_a_poisoned_class_is_the_poison(checkered_shapes: PoisonedShapes) -> None:
    found = get("clustering").judge(checkered_shapes.evidence, NoProgress())
    poisoned, target = checkered_shapes.poisoned, checkered_shapes.target
    assert found.suspects[poisoned].mean() > 0.7
    assert found.suspects[target & ~poisoned].mean() < 0.1
    judged = found.classes[TARGET]
    assert judged.separation > judged.limit
    assert judged.suspects == found.suspects[target].sum()
    assert "of its images make the smaller of two clusters" in judged.why


def test_a_cluster_that_is_too_large_is_no_poison(checkered_shapes: PoisonedShapes) -> None:
    found = Clustering(largest=0.05).judge(checkered_shapes.evidence, NoProgress())
    assert not found.suspects[checkered_shapes.target].any()
    assert "a poisoned one has at most 5%" in found.classes[TARGET].why


def test_a_class_with_a_handful_of_images_is_not_judged(clean_shapes: PoisonedShapes) -> None:
    images = clean_shapes.evidence.images
    few = torch.cat([torch.where(images.labels != 2)[0], torch.where(images.labels == 2)[0][:5]])
    found = get("clustering").judge(replace(clean_shapes.evidence, images=images.chosen(few)), NoProgress())
    assert (found.classes[2].images, found.classes[2].suspects, found.classes[2].too_few) == (5, 0, True)
