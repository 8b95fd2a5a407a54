from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffclean.variation.color import ColorTransfer, lab_from_rgb, rgb_from_lab, statistics, transferred

BYTE = st.integers(0, 255)


def picture(seed: int, low: int, high: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(low, high, (24, 31, 3), dtype=np.uint8)


def test_lab_of_known_colours() -> None:
    """White, black, and sRGB red, green and blue, as tables of CIELAB (D65) have them."""
    rgb = np.array([[1, 1, 1], [0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32)
    lab = [[100, 0, 0], [0, 0, 0], [53.24, 80.09, 67.20], [87.73, -86.18, 83.18], [32.30, 79.19, -107.86]]
    np.testing.assert_allclose(lab_from_rgb(rgb), lab, atol=0.03)


@given(BYTE, BYTE, BYTE)
def test_lab_round_trip(red: int, green: int, blue: int) -> None:
    rgb = np.array([[red, green, blue]], np.float32) / 255
    np.testing.assert_allclose(rgb_from_lab(lab_from_rgb(rgb)), rgb, atol=2e-4)


@pytest.mark.parametrize("transfer", [ColorTransfer.MEAN_STD, ColorTransfer.LAB])
def test_statistics_are_carried_over(transfer: ColorTransfer) -> None:
    source, image = picture(0, 90, 150), picture(1, 40, 240)
    moved = transferred(image, statistics(source, transfer), transfer)
    assert moved.dtype == np.uint8
    assert moved.shape == image.shape
    wanted, before, after = (statistics(each, transfer) for each in (source, image, moved))
    assert wanted is not None
    assert before is not None
    assert after is not None
    level = 1.0 if transfer is ColorTransfer.LAB else 1 / 255
    np.testing.assert_allclose(after.mean, wanted.mean, atol=level)
    np.testing.assert_allclose(after.std, wanted.std, atol=level)
    assert np.abs(before.mean - wanted.mean).max() > 2 * level


def test_mean_std_is_the_papers_formula() -> None:
    source, image = picture(2, 100, 140), picture(3, 60, 200)
    moved = transferred(image, statistics(source, ColorTransfer.MEAN_STD), ColorTransfer.MEAN_STD)
    for channel in range(3):
        x, s = image[..., channel].astype(float), source[..., channel].astype(float)
        expected = (x - x.mean()) / x.std() * s.std() + s.mean()
        assert np.abs(moved[..., channel] - expected).max() <= 0.51


@pytest.mark.parametrize("transfer", list(ColorTransfer))
def test_a_picture_keeps_its_own_colours(transfer: ColorTransfer) -> None:
    image = picture(4, 0, 256)
    moved = transferred(image, statistics(image, transfer), transfer)
    assert np.abs(moved.astype(int) - image).max() <= (0 if transfer is ColorTransfer.NONE else 1)


def test_none_is_identity() -> None:
    image = picture(5, 0, 256)
    assert statistics(image, ColorTransfer.NONE) is None
    assert transferred(image, None, ColorTransfer.NONE) is image


@pytest.mark.parametrize("transfer", [ColorTransfer.MEAN_STD, ColorTransfer.LAB])
def test_flat_pictures(transfer: ColorTransfer) -> None:
    """A flat source flattens; a flat variation has nothing to scale, and must not blow up."""
    flat = np.full((8, 8, 3), (200, 40, 90), np.uint8)
    image = picture(6, 50, 200)[:8, :8]
    np.testing.assert_allclose(transferred(image, statistics(flat, transfer), transfer), flat, atol=1)
    moved = transferred(flat, statistics(image, transfer), transfer)
    assert np.ptp(moved.reshape(-1, 3), axis=0).max() == 0
