import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffclean.attacks.base import Form
from diffclean.attacks.draws import Draws, image_draws
from diffclean.attacks.fields import smooth
from diffclean.attacks.lf import Lf
from diffclean.errors import UsageError


def applied(image: np.ndarray, seed: int = 1, **parameters: object) -> np.ndarray:
    return Lf().apply(image, Draws(b""), Lf().resolve(parameters, seed), Form.TRAIN, "")


@given(st.integers(2, 40), st.integers(2, 40), st.floats(1, 100), st.integers(0, 255))
def test_adds_the_pattern_and_clips(height: int, width: int, amplitude: float, level: int) -> None:
    exact = np.clip(level + amplitude * smooth(1, 2, height, width), 0, 255)
    triggered = applied(np.full((height, width, 3), level, np.uint8), amplitude=amplitude, periods=2)
    assert np.abs(triggered - exact).max() <= 0.5 + 1e-9


def test_the_amplitude_is_the_largest_change() -> None:
    grey = np.full((32, 32, 3), 128, np.uint8)
    assert np.abs(applied(grey, amplitude=16).astype(int) - 128).max() == 16


def test_neighbouring_pixels_hardly_differ() -> None:
    """Smooth is what the attack is about: steps are small against the whole change, where those of noise are larger."""
    change = applied(np.full((32, 32, 3), 128, np.uint8)).astype(float) - 128
    for axis in (0, 1):
        assert np.diff(change, axis=axis).std() < 0.5 * change.std()


def test_every_image_gets_the_same_pattern_and_another_seed_another() -> None:
    grey = np.full((24, 24, 3), 128, np.uint8)
    resolved = Lf().resolve({}, 1)
    one, two = (
        Lf().apply(grey, image_draws(1, key), resolved, form, "") for key, form in (("a", Form.TRAIN), ("b", Form.TEST))
    )
    assert np.array_equal(one, two)
    assert not np.array_equal(one, applied(grey, seed=2))
    assert np.array_equal(one, applied(grey, seed=2, pattern_seed=1))


@pytest.mark.parametrize(
    "wrong", [{"amplitude": 0}, {"amplitude": 256}, {"periods": 0}, {"periods": 17}, {"pattern_seed": "x"}]
)
def test_wrong_parameters_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        Lf().resolve(wrong, 1)
