"""The drawn picture against what is known of photographs."""

import numpy as np
import pytest

from diffclean.attacks.natural import natural_picture

SEEDS = [1, 2, 3]


def grey(seed: int) -> np.ndarray:
    return natural_picture(seed).astype(float).mean(axis=2)


@pytest.mark.parametrize("seed", SEEDS)
def test_its_amplitude_spectrum_falls_about_as_one_over_f(seed: int) -> None:
    """Photographs have exponents of about -0.8 to -1.5 (Tolhurst, Tadmor and Chao 1992); noise has 0."""
    picture = grey(seed)
    window = np.hanning(256)
    power = np.abs(np.fft.fft2((picture - picture.mean()) * np.outer(window, window))) ** 2
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(256), np.fft.fftfreq(256))) * 256
    rings = np.arange(2, 80)
    means = [power[(frequency >= ring - 0.5) & (frequency < ring + 0.5)].mean() for ring in rings]
    exponent = np.polyfit(np.log(rings), np.log(means), 1)[0] / 2
    assert -1.6 < exponent < -0.8


@pytest.mark.parametrize("seed", SEEDS)
def test_it_has_hard_edges(seed: int) -> None:
    """Steps between neighbours are mostly small and sometimes large: a kurtosis far above 3, that of Gaussian noise."""
    steps = np.diff(grey(seed), axis=1)
    assert ((steps - steps.mean()) ** 4).mean() / steps.var() ** 2 > 10


def test_another_seed_is_another_picture() -> None:
    pictures = np.stack([grey(seed).ravel() for seed in SEEDS])
    assert np.abs(np.corrcoef(pictures) - np.eye(len(SEEDS))).max() < 0.6
    assert np.array_equal(natural_picture(1), natural_picture.__wrapped__(1))
