"""SIG against the paper's formula, written out with loops."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffclean.attacks.base import Form
from diffclean.attacks.draws import Draws
from diffclean.attacks.sig import Sig
from diffclean.errors import UsageError


def applied(image: np.ndarray, form: Form = Form.TRAIN, **parameters: object) -> np.ndarray:
    return Sig().apply(image, Draws(b""), Sig().resolve(parameters, 1), form, "")


@given(st.integers(1, 40), st.integers(25, 60), st.floats(1, 100), st.integers(1, 12), st.integers(0, 255))
def test_the_papers_formula(height: int, width: int, delta: float, f: int, level: int) -> None:
    triggered = applied(np.full((height, width, 3), level, np.uint8), delta=delta, f=f)
    for j in range(1, width + 1):
        exact = min(255.0, max(0.0, level + delta * math.sin(2 * math.pi * j * f / width)))
        assert (abs(triggered[:, j - 1].astype(float) - exact) <= 0.5 + 1e-6).all()


def test_six_periods_of_twenty_levels() -> None:
    wave = applied(np.full((4, 96, 3), 128, np.uint8))[0, :, 0].astype(int) - 128
    assert (wave.max(), wave.min()) == (20, -20)
    assert np.abs(np.fft.rfft(wave)).argmax() == 6


def test_test_images_can_get_a_stronger_signal() -> None:
    image = np.full((4, 96, 3), 128, np.uint8)
    assert np.array_equal(applied(image, Form.TEST), applied(image, Form.TRAIN))
    stronger = {"delta": 30, "test_delta": 60}
    assert applied(image, Form.TEST, **stronger).max() == 188
    assert applied(image, Form.TRAIN, **stronger).max() == 158


def test_an_image_that_is_too_narrow_for_the_wave() -> None:
    """Two pixels a period would all be at a zero of the sine, and there would be no trigger."""
    assert applied(np.full((4, 13, 3), 128, np.uint8)).std() > 0
    with pytest.raises(UsageError, match=r"(?s)6 periods .* 12x4 px.* f below 6"):
        applied(np.full((4, 12, 3), 128, np.uint8))


@pytest.mark.parametrize("wrong", [{"delta": 0}, {"delta": 256}, {"f": 0}, {"f": "6"}, {"test_delta": -1}])
def test_wrong_parameters_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        Sig().resolve(wrong, 1)


def test_two_periods_of_forty_levels_on_a_small_image() -> None:
    """A coarse and strong wave, which an image of 32 px has room for: one period is 16 px."""
    wave = applied(np.full((32, 32, 3), 128, np.uint8), f=2, delta=40)[0, :, 0].astype(int) - 128
    assert (wave.max(), wave.min()) == (40, -40)
    assert np.abs(np.fft.rfft(wave)).argmax() == 2
    assert np.array_equal(wave[:16], wave[16:])
    assert applied(np.full((32, 32, 3), 240, np.uint8), f=2, delta=40).max() == 255, (
        "what would leave 0..255 is clipped"
    )
