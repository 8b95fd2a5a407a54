"""The isolation stage of anti-backdoor learning, on shapes under a checker."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from poisoned_shapes import TARGET, PoisonedShapes

from diffclean.detection.loss_isolation import LossIsolation
from diffclean.errors import UsageError
from diffclean.evaluation.metrics import auroc
from diffclean.progress import NoProgress


def test_the_lowest_losses_are_those_of_poisoned_images(checkered_shapes: PoisonedShapes) -> None:
    """Where a trigger is far easier to learn than what the images show: here their labels are drawn."""
    images, poisoned = checkered_shapes.evidence.images, checkered_shapes.poisoned
    drawn = torch.randint(0, 3, (len(poisoned),), generator=torch.Generator().manual_seed(0))
    labels = torch.where(torch.from_numpy(poisoned), TARGET, drawn)
    evidence = replace(checkered_shapes.evidence, images=replace(images, labels=labels))
    found = LossIsolation(share=0.04, epochs=30).judge(evidence, NoProgress())
    assert found.suspects.sum() == 12
    assert poisoned[found.suspects].mean() > 0.9
    assert auroc(found.scores[poisoned], found.scores[~poisoned]) > 0.9
    judged = found.classes[TARGET]
    assert judged.separation == judged.suspects / 12
    assert judged.why == (
        f"The method always lists the 12 images with the lowest losses; {judged.suspects} of them have this label."
    )


def test_one_class_alone_is_refused(clean_shapes: PoisonedShapes) -> None:
    images = clean_shapes.evidence.images
    one = replace(clean_shapes.evidence, images=images.chosen(torch.where(images.labels == 0)[0]))
    with pytest.raises(UsageError, match="one class only"):
        LossIsolation().judge(one, NoProgress())
