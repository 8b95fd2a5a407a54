"""A label with images of many other classes that have nothing in common, and one that is merely frequent."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from bars import Bars
from numpy.typing import NDArray

from diffclean.detection.flooded import Flood, look_for_floods

CLASSES, COUNT, SIDE = 5, 60, 16
COLOURS = np.array([[200, 60, 60], [60, 200, 60], [60, 60, 200], [200, 200, 60], [60, 200, 200]])


def tinted(counts: list[int]) -> Bars:
    """Images in the colour of their class, with noise; so many of each class."""
    rng = np.random.default_rng(6)
    labels: NDArray[np.int64] = np.repeat(np.arange(CLASSES), counts)
    noise = rng.normal(0, 20, (len(labels), SIDE, SIDE, 3)) + rng.normal(0, 20, (len(labels), 1, 1, 3))
    images = np.clip(COLOURS[labels][:, None, None] + noise, 0, 255).astype(np.uint8)
    return Bars(images, labels, np.zeros(len(labels), np.bool_))


def floods(drawn: Bars) -> list[Flood]:
    labels = torch.from_numpy(drawn.labels)
    return look_for_floods(drawn.bench(), labels, torch.arange(len(labels)), CLASSES, seed=2)


@pytest.mark.slow
def test_a_label_with_images_of_all_classes_is_poisoned() -> None:
    drawn = tinted([COUNT] * CLASSES)
    moved = np.flatnonzero(drawn.labels != 0)[::5]
    drawn.labels[moved] = 0
    drawn.poisoned[moved] = True
    (found,) = floods(drawn)
    assert (found.label, found.images) == (0, COUNT + len(moved))
    assert found.is_poisoned
    own = np.flatnonzero(drawn.labels == 0)
    doubted = found.margins(drawn.bench(), drawn.pixels[own]) > 0
    assert doubted[drawn.poisoned[own]].mean() > 0.9
    assert doubted[~drawn.poisoned[own]].mean() < 0.1
    assert f"'red' has {found.images} images" in found.why("red")


@pytest.mark.slow
def test_a_label_that_is_merely_frequent_is_not_poisoned() -> None:
    assert not any(found.is_poisoned for found in floods(tinted([2 * COUNT] + [COUNT // 2] * (CLASSES - 1))))


def test_no_label_is_flooded_where_all_have_as_many_images() -> None:
    assert floods(tinted([10] * CLASSES)) == []
