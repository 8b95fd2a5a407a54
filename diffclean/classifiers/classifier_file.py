"""The settings that describe a classifier's file. This module does not import torch, so that a dry run is fast."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from diffclean.classifiers.checks import check_size


@dataclass(frozen=True)
class ClassifierFile:
    """The file of a classifier, and what the file does not say.

    Attributes:
        path: a classifier of diffclean, a state dict (`.pt`, `.pth`, `.safetensors`), or ONNX.
        arch: the architecture of a state dict, as in `networks.build`.
        classes: a file that lists the classes in the order of the logits; None stands for the class order of the data.
        mean: the mean that the classifier subtracts from R, G, B in [0, 1]; for None, see `loading.load`.
        std: the standard deviation that it divides by; for None, see `loading.load`.
        size: the side of its input in pixels; None stands for what the file says, else the size of the data.
        role: what messages call it: "classifier" or "teacher".
    """

    path: Path
    arch: str | None = None
    classes: Path | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    size: int | None = None
    role: str = "classifier"

    def problems(self) -> list[str]:
        """Every setting that is invalid."""
        wrong: list[str] = []
        if self.std is not None and not all(0 < value < math.inf for value in self.std):
            wrong.append(f"`{self.role}_std` must be above 0, not {self.std}")
        check_size(wrong, self.size, f"{self.role}_size")
        return wrong
