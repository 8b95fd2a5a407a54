"""One group or two: on numbers drawn from known distributions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffclean.detection.mixture import split, valley

CLEAN = np.random.default_rng(0).normal(1, 1.2, 1000)


@pytest.mark.parametrize("share", [0.02, 0.1, 0.5, 0.9])
def test_two_groups_are_found_and_parted(share: float) -> None:
    count = int(1000 * share)
    values = np.concatenate([CLEAN[count:], np.random.default_rng(1).normal(8, 1.5, count)])
    found = split(values)
    assert found.separation > 0.2
    assert np.mean((found.upper > 0.5) == (np.arange(1000) >= 1000 - count)) > 0.97


@pytest.mark.parametrize("draw", ["normal", "laplace", "uniform"])
def test_one_group_is_not_parted(draw: str) -> None:
    values = getattr(np.random.default_rng(2), draw)(size=1000)
    assert split(values).separation < 0.2
    if draw == "normal":
        assert split(values).separation < 0.02


def test_it_is_the_log_likelihoods_of_the_formula() -> None:
    """Two spikes far apart, each a Gaussian of its own: worked out by hand."""
    rng = np.random.default_rng(3)
    values = np.concatenate([rng.normal(0, 1, 50_000), rng.normal(20, 1, 50_000)])
    # Each group's deviation is taken for a little more than it is, which costs some hundredths.
    # L2 / n = -ln 2 + L(N(0, 1)), L1 / n = L(N(10, 101)): their difference is ln(sqrt(101)) - ln 2.
    assert split(values).separation == pytest.approx(np.log(101) - 2 * np.log(2), abs=0.03)


@settings(max_examples=40)  # each fits eight times
@given(st.lists(st.floats(-1e3, 1e3), max_size=30), st.floats(0.1, 10), st.floats(-100, 100))
def test_scale_and_place_make_no_difference(numbers: list[float], scale: float, shift: float) -> None:
    values = np.round(np.array(numbers), 3)
    one, other = split(values), split(values * scale + shift)
    assert np.isfinite(one.separation)
    assert ((one.upper >= 0) & (one.upper <= 1)).all()
    assert len(one.upper) == len(values)
    if len(values) and values.std() > 0.01:
        assert other.separation == pytest.approx(one.separation, abs=1e-3)


@pytest.mark.parametrize("values", [[], [3.0], [2.0, 2.0, 2.0]])
def test_nothing_to_part(values: list[float]) -> None:
    found = split(np.array(values))
    assert found.separation == 0
    assert not found.upper.any()


def test_a_valley_lies_between_two_peaks_wherever_the_border_is() -> None:
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(-5, 1.5, 900), rng.normal(4, 1, 300)])
    for border in (-3.0, 0.0, 3.0):
        assert -2 < valley(values, border) < 2


def test_one_peak_has_no_valley() -> None:
    values = np.random.default_rng(0).normal(0, 1, 1000)
    assert valley(values, 1.0) == np.inf
    assert valley(values, 10.0) == valley(values, -10.0) == np.inf
    assert valley(np.zeros(20), 0.0) == np.inf
