"""Pictures of a bright bar at one side: in the mirror, left is right."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

LEFT, MIDDLE, RIGHT = 2, 6, 11


def draw_sides(root: Path, count: int, columns: dict[str, tuple[int, ...]]) -> dict[str, int]:
    """Write `count` noisy pictures a class, of 16 px, with a bar at one of its columns; return the class numbers."""
    rng = np.random.default_rng(0)
    for label, own in columns.items():
        (root / label).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(0, 90, (16, 16, 3), np.uint8)
            column = own[number % len(own)]
            pixels[3:13, column : column + 3] = 230
            Image.fromarray(pixels).save(root / label / f"{number}.png")
    return {label: number for number, label in enumerate(columns)}
