"""A label with images of many other classes that have nothing in common, and one that is merely frequent."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from bars import Bars
from tints import CLASSES, COUNT, tinted

from diffclean.detection.flooded import Flood, look_for_floods


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
