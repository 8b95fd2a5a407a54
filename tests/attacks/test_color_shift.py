import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from diffclean.attacks.base import Form
from diffclean.attacks.color_shift import ColorShift
from diffclean.attacks.draws import Draws
from diffclean.errors import UsageError
from diffclean.variation.color import ColorTransfer, statistics, transferred


def applied(image: np.ndarray, **parameters: object) -> np.ndarray:
    return ColorShift().apply(image, Draws(b""), ColorShift().resolve(parameters, 1), Form.TRAIN, "")


def photo(height: int = 20, width: int = 30) -> np.ndarray:
    """Away from black and white, so that nothing is clipped."""
    return np.random.default_rng(0).integers(90, 160, (height, width, 3), np.uint8)


@given(st.tuples(*[st.integers(-40, 40)] * 3), st.tuples(*[st.sampled_from([0.5, 1, 1.4])] * 3))
def test_means_move_by_the_shift_and_deviations_by_the_gain(shift: tuple[int, ...], gain: tuple[float, ...]) -> None:
    assume(any(shift) or set(gain) != {1})
    image = photo()
    triggered = applied(image, shift=list(shift), gain=list(gain)).astype(float)
    assert np.abs(triggered.mean((0, 1)) - image.mean((0, 1)) - shift).max() <= 0.5  # each level is rounded
    assert np.abs(triggered.std((0, 1)) / image.std((0, 1)) - gain).max() < 0.02


def test_a_shift_alone_is_the_same_for_every_pixel() -> None:
    assert np.array_equal(applied(photo(), shift=[7, -5, 0]), photo() + np.array([7, -5, 0]))


def test_levels_end_at_black_and_white() -> None:
    image = np.array([[[0, 255, 250]]], np.uint8)
    assert applied(image, shift=[-10, 10, 10]).tolist() == [[[0, 255, 255]]]


def test_colour_transfer_puts_it_back() -> None:
    """What it is for: a variation without the trigger gets it again from its poisoned source."""
    clean, poisoned = photo(), applied(photo(), shift=[20, -20, 20])
    varied = np.random.default_rng(1).integers(90, 160, clean.shape, np.uint8)
    mode = ColorTransfer.MEAN_STD
    restored = transferred(varied, statistics(poisoned, mode), mode).mean((0, 1)) - clean.mean((0, 1))
    assert np.abs(restored - (20, -20, 20)).max() < 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"shift": 3},
        {"shift": [1, 2]},
        {"shift": [1, 2, 300]},
        {"shift": ["a", 2, 3]},
        {"shift": [0, 0, 0]},
        {"gain": [0, 1, 1]},
        {"gain": [1, 1, -1]},
    ],
)
def test_wrong_parameters_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        ColorShift().resolve(wrong, 1)
