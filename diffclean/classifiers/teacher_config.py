"""The settings that describe a classifier's file. This module does not import torch, so that a dry run is fast."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from diffclean.classifiers.checks import check_size


@dataclass(frozen=True)
class TeacherConfig:
    """The file of a teacher, and what the file does not say.

    Attributes:
        path: a classifier of diffclean, a state dict (`.pt`, `.pth`, `.safetensors`), or ONNX.
        arch: the architecture of a state dict, as in `networks.build`.
        classes: a file that lists the classes in the order of the logits; None stands for the class order of the data.
        mean: the mean that the teacher subtracts from R, G, B in [0, 1]; for None, see `teachers.load`.
        std: the standard deviation that it divides by; for None, see `teachers.load`.
        size: the side of its input in pixels; None stands for what the file says, else the size of the data.
    """

    path: Path
    arch: str | None = None
    classes: Path | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    size: int | None = None

    def problems(self) -> list[str]:
        """Every setting that is invalid."""
        wrong: list[str] = []
        if self.std is not None and not all(0 < value < math.inf for value in self.std):
            wrong.append(f"`teacher_std` must be above 0, not {self.std}")
        check_size(wrong, self.size, "teacher_size")
        return wrong
