"""Images in the colour of their class, in memory: classes that are easy to learn, in any number of images."""

from __future__ import annotations

import numpy as np
from bars import Bars
from numpy.typing import NDArray

CLASSES, COUNT, SIDE = 5, 60, 16
COLOURS = np.array([[200, 60, 60], [60, 200, 60], [60, 60, 200], [200, 200, 60], [60, 200, 200]])


def tinted(counts: list[int]) -> Bars:
    """Images in the colour of their class, with noise; so many of each class."""
    rng = np.random.default_rng(6)
    labels: NDArray[np.int64] = np.repeat(np.arange(CLASSES), counts)
    noise = rng.normal(0, 20, (len(labels), SIDE, SIDE, 3)) + rng.normal(0, 20, (len(labels), 1, 1, 3))
    images = np.clip(COLOURS[labels][:, None, None] + noise, 0, 255).astype(np.uint8)
    return Bars(images, labels, np.zeros(len(labels), np.bool_))
