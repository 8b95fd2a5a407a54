import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffclean.attacks.adaptive_blend import AdaptiveBlend
from diffclean.attacks.base import Form
from diffclean.attacks.draws import image_draws, noise
from diffclean.errors import UsageError


def applied(image: np.ndarray, form: Form, key: str = "x", **parameters: object) -> np.ndarray:
    attack = AdaptiveBlend()
    return attack.apply(image, image_draws(1, key), attack.resolve(parameters, 1), form, "")


BLACK = np.zeros((32, 32, 3), np.uint8)


def shown(triggered: np.ndarray) -> np.ndarray:
    """(4, 4): which of the sixteen pieces of a black 32 px image carry something."""
    return triggered.reshape(4, 8, 4, 8, 3).any(axis=(1, 3, 4))


def test_test_images_carry_the_whole_pattern() -> None:
    assert np.array_equal(applied(BLACK, Form.TEST), np.rint(0.2 * noise(1, (32, 32, 3))).astype(np.uint8))


@pytest.mark.parametrize("form", [Form.TRAIN, Form.COVER])
def test_training_images_carry_half_of_its_pieces_more_faintly(form: Form) -> None:
    triggered = applied(BLACK, form)
    pieces = shown(triggered)
    assert pieces.sum() == 8
    mask = np.kron(pieces, np.ones((8, 8)))[:, :, None]
    assert np.array_equal(triggered, np.rint(0.15 * mask * noise(1, (32, 32, 3))).astype(np.uint8))


def test_each_image_has_pieces_of_its_own() -> None:
    subsets = [shown(applied(BLACK, Form.TRAIN, key=str(key))) for key in range(60)]
    assert len({subset.tobytes() for subset in subsets}) > 50
    assert np.any(subsets, axis=0).all(), "every piece comes up"


@given(st.integers(4, 40), st.integers(4, 40))
def test_pieces_fill_an_image_of_any_size(height: int, width: int) -> None:
    """With nothing masked, the training form is a plain blend."""
    image = np.full((height, width, 3), 90, np.uint8)
    exact = np.rint(0.85 * 90 + 0.15 * noise(1, (height, width, 3))).astype(np.uint8)
    assert np.array_equal(applied(image, Form.TRAIN, mask_rate=0), exact)


def test_an_image_with_fewer_pixels_than_pieces() -> None:
    with pytest.raises(UsageError, match=r"(?s)4x4 pieces .* 20x3 px.*-p pieces=9"):
        applied(np.zeros((3, 20, 3), np.uint8), Form.TRAIN)


@pytest.mark.parametrize(
    "wrong",
    [
        {"alpha": 0},
        {"test_alpha": 1.1},
        {"pieces": 15},
        {"pieces": 0},
        {"mask_rate": -0.1},
        {"mask_rate": 1},
        {"mask_rate": "x"},
        {"pattern": 3},
    ],
)
def test_wrong_parameters_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        AdaptiveBlend().resolve(wrong, 1)
