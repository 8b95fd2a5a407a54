"""Fields against the transform that they are said to be shaped in."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffclean.attacks.fields import frequencies, smooth


def dct(values: np.ndarray) -> np.ndarray:
    """The orthonormal DCT-II of (H, W), written out."""

    def matrix(n: int) -> np.ndarray:
        k, x = np.mgrid[0:n, 0:n]
        rows = np.cos(np.pi * (2 * x + 1) * k / (2 * n)) * np.sqrt(2 / n)
        rows[0] /= np.sqrt(2)
        return rows

    return matrix(values.shape[0]) @ values @ matrix(values.shape[1]).T


@given(st.integers(2, 70), st.integers(2, 70), st.floats(0.5, 16), st.integers(0, 99))
def test_a_smooth_field_has_mean_zero_and_a_peak_of_one(height: int, width: int, periods: float, seed: int) -> None:
    made = smooth(seed, periods, height, width)
    assert made.shape == (height, width, 3)
    assert np.abs(made).max() == 1
    assert np.allclose(made.mean(axis=(0, 1)), 0, atol=1e-9)


@pytest.mark.parametrize("periods", [1, 2, 4])
def test_its_spectrum_is_the_gaussian_that_was_asked_for(periods: int) -> None:
    """The share of the energy in rings of frequency, over many seeds, against that of the Gaussian."""
    size = 64
    power = np.zeros((size, size))
    for seed in range(100):
        for channel in smooth(seed, periods, size, size).transpose(2, 0, 1):
            energy = dct(channel) ** 2
            power += energy / energy.sum() / 300
    frequency = np.hypot(*np.mgrid[0:size, 0:size] / 2)
    expected = np.exp(-((frequency / periods) ** 2)) * (frequency > 0)
    expected /= expected.sum()
    for low, high in ((0, 0.7), (0.7, 1), (1, 1.4), (1.4, 2), (2, 99)):
        ring = (frequency >= low * periods) & (frequency < high * periods)
        assert power[ring].sum() == pytest.approx(expected[ring].sum(), abs=0.03)


def test_it_is_the_same_picture_at_any_size() -> None:
    small, large = smooth(3, 2, 32, 32), smooth(3, 2, 96, 96)
    assert np.abs(large.reshape(32, 3, 32, 3, 3).mean(axis=(1, 3)) - small).max() < 0.1


def test_seeds_give_unrelated_fields_and_channels() -> None:
    fields = np.concatenate([smooth(seed, 4, 32, 32).reshape(-1, 3).T for seed in range(4)])
    between = np.corrcoef(fields) - np.eye(len(fields))
    assert np.abs(between).max() < 0.5


def test_frequencies_are_counted_in_periods() -> None:
    assert frequencies(2).shape == (5, 5)
    assert frequencies(2)[0, 4] == 2
    assert frequencies(2)[3, 4] == 2.5
