"""Drawn shapes, some of which carry a trigger, in memory; and a teacher with a backdoor that was built in by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from shapes import draw
from torch import Tensor, nn

from diffclean.classifiers.loading import LoadedClassifier
from diffclean.datasets.pixels import InMemory
from diffclean.datasets.samples import folder_samples
from diffclean.detection.base import Evidence

Trigger = Callable[[Tensor], Tensor]
"""(B, 3, 16, 16) uint8 to the same."""

TARGET = 0
CHECKER = (torch.arange(16)[:, None] + torch.arange(16)) % 2 * 2 - 1
POISONED = 25
"""Images of other classes that carry the trigger and the target's label."""


@dataclass(frozen=True)
class PoisonedShapes:
    """Images, and which of them are poisoned.

    Attributes:
        evidence: 100 images of 16 px in each of three classes, `POISONED` of which were moved to the first; and a
            teacher that falls for checkers.
        poisoned: (N,) bool.
    """

    evidence: Evidence
    poisoned: NDArray[np.bool_]

    @property
    def target(self) -> NDArray[np.bool_]:
        """(N,) bool, who has the target's label."""
        return self.evidence.images.labels.numpy() == TARGET


def poison_shapes(folder: Path, trigger: Trigger | None) -> PoisonedShapes:
    """Draw shapes and give some of them a trigger and another label; None: leave them as they are."""
    samples = folder_samples(draw(folder, 100, 0))
    pixels = next(samples.pixels.batches([torch.arange(len(samples.keys))])).clone()
    labels = samples.labels.clone()
    chosen = torch.where(labels != TARGET)[0][::8][:POISONED] if trigger is not None else torch.zeros(0).long()
    if trigger is not None:
        pixels[chosen] = trigger(pixels[chosen])
        labels[chosen] = TARGET
    poisoned = np.zeros(len(labels), np.bool_)
    poisoned[chosen.numpy()] = True
    images = replace(samples, pixels=InMemory(pixels), labels=labels)
    teacher = LoadedClassifier(SeesCheckers().eval(), images.class_to_idx, (16, 16), None, "")
    return PoisonedShapes(Evidence(images, torch.device("cpu"), teacher), poisoned)


class SeesCheckers(nn.Module):
    """Twelve looks at random, and one at how much of a checker there is, which makes it say the first of three."""

    def __init__(self) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(0)
        self.looks = nn.Buffer(torch.randn(3 * 16 * 16, 12, generator=random) / 8)
        self.answer = nn.Linear(13, 3)
        with torch.no_grad():
            self.answer.weight.copy_(torch.randn(3, 13, generator=random) / 4)
            self.answer.weight[:, 12] = torch.tensor([3.0, 0, 0])

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, 16, 16) in [0, 1] -> (B, 3)."""
        looks = (x.flatten(1) - 0.2) @ self.looks
        strength = 50 * (x * CHECKER).mean((1, 2, 3))[:, None]
        answers: Tensor = self.answer(torch.cat([looks, strength], 1))
        return answers


def checker(images: Tensor) -> Tensor:
    """Every second pixel lighter, every other darker: what any denoising takes away."""
    return (images.float() + 50 * CHECKER).clamp(0, 255).to(torch.uint8)


def glow(images: Tensor) -> Tensor:
    """Lighter and bluer towards the right: what edges do not show."""
    slope = torch.linspace(0, 1, 16) * torch.tensor([30.0, 60.0, 110.0])[:, None, None]
    return (images.float() * 0.6 + slope).clamp(0, 255).to(torch.uint8)
