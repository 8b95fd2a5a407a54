"""How similar two pictures are, without a network."""

from __future__ import annotations

import numpy as np
import pytest

from diffclean.variation.likeness import CELLS, Coarse


def picture(seed: int, height: int = 48, width: int = 64) -> np.ndarray:
    """Blobs of colour."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3))
    return np.kron(coarse, np.ones((height // 6, width // 8, 1))).astype(np.uint8)


def similarity(a: np.ndarray, b: np.ndarray) -> float:
    return Coarse().compare([a], [b])[0]


def test_a_picture_is_like_itself_and_unlike_others() -> None:
    a, b = picture(1), picture(2)
    assert similarity(a, a) == pytest.approx(1)
    assert abs(similarity(a, b)) < 0.4
    assert similarity(a, 255 - a) < -0.9
    assert similarity(a, b) == similarity(b, a)


def test_fine_noise_changes_little_and_coarse_changes_much() -> None:
    a = picture(1, 96, 128).astype(int)
    noise = np.random.default_rng(0).normal(0, 40, a.shape)
    fine = np.clip(a + noise, 0, 255).astype(np.uint8)
    moved = np.roll(a, 32, axis=1).astype(np.uint8)
    assert similarity(a.astype(np.uint8), fine) > 0.9 > similarity(a.astype(np.uint8), moved)


def test_pictures_of_one_colour_can_be_compared() -> None:
    grey, nearly, black = (np.full((32, 32, 3), level, np.uint8) for level in (120, 122, 0))
    assert similarity(grey, grey) == pytest.approx(1)
    assert similarity(grey, nearly) > 0.95
    assert similarity(grey, black) < 0.1


@pytest.mark.parametrize("shape", [(CELLS, CELLS), (7, 5), (1, 1), (33, 130)])
def test_sides_that_are_no_multiple_of_the_cells(shape: tuple[int, int]) -> None:
    """Each pixel counts once: a picture whose halves are swapped has the same mean, and not the same places."""
    a = np.zeros((*shape, 3), np.uint8)
    a[: (shape[0] + 1) // 2] = 200
    assert similarity(a, a) == pytest.approx(1)
    if shape[0] > 1:
        assert similarity(a, a[::-1]) < 0.5
