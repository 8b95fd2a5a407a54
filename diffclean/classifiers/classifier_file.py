"""A classifier's file and what people say about it; no torch here, so that a dry run is quick."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from diffclean.classifiers.checks import check_size


@dataclass(frozen=True)
class ClassifierFile:
    """A classifier's file, and what the file does not say.

    Attributes:
        path: a classifier of ours, a state dict (`.pt`, `.pth`, `.safetensors`), or ONNX.
        arch: of a state dict, as in `networks.build`.
        classes: file that lists its classes in the order of its logits; None: the data's class order.
        mean: what it subtracts from R, G, B in [0, 1]; None: `loading.load` says.
        std: what it divides by; None: as for the mean.
        size: side in px of its input; None: what the file says, else the data's own size.
        role: what messages call it, "classifier" or "teacher". The other settings are fields of that name there
            (`teacher_size`), as the functions and verbs that take them call them.
    """

    path: Path
    arch: str | None = None
    classes: Path | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    size: int | None = None
    role: str = "classifier"

    def problems(self) -> list[str]:
        """Every setting that makes no sense."""
        wrong: list[str] = []
        if self.std is not None and not all(0 < value < math.inf for value in self.std):
            wrong.append(f"`{self.role}_std` must be above 0, not {self.std}")
        check_size(wrong, self.size, f"{self.role}_size")
        return wrong
