import numpy as np
import pytest

from diffclean.attacks.base import Form
from diffclean.attacks.draws import image_draws
from diffclean.attacks.two_scale import TwoScale, patterns
from diffclean.errors import UsageError

ATTACK = TwoScale()
GREY = np.full((32, 32, 3), 128, np.uint8)


def change(form: Form, key: str = "x", **parameters: object) -> np.ndarray:
    """What the attack adds to a grey image, (32, 32, 3) float."""
    resolved = ATTACK.resolve(parameters, 1)
    return ATTACK.apply(GREY, image_draws(1, key), resolved, form, "").astype(float) - 128


def strengths(added: np.ndarray, **parameters: object) -> np.ndarray:
    """(2, parts): how much of each part is in it, by least squares; 1 is all of it."""
    resolved = ATTACK.resolve(parameters, 1)
    smooth, fine = patterns(resolved, 32, 32)
    columns = np.concatenate([resolved["smooth"] * smooth, resolved["fine"] * fine]).reshape(8, -1)
    found, *_ = np.linalg.lstsq(columns.T, added.ravel(), rcond=None)
    return found.reshape(2, 4)


def test_test_images_carry_both_patterns_whole() -> None:
    assert np.allclose(strengths(change(Form.TEST)), 1, atol=0.1)


@pytest.mark.parametrize("key", ["a", "b", "c"])
def test_training_images_carry_half_of_each(key: str) -> None:
    shown = strengths(change(Form.TRAIN, key))
    assert np.allclose(shown, shown.round(), atol=0.1)
    assert shown.round().sum(axis=1).tolist() == [2, 2]


def test_covers_carry_half_of_one_pattern() -> None:
    shown = [strengths(change(Form.COVER, str(key))).round().sum(axis=1).tolist() for key in range(30)]
    assert {tuple(row) for row in shown} == {(2, 0), (0, 2)}


def test_each_image_has_parts_of_its_own() -> None:
    subsets = {strengths(change(Form.TRAIN, str(key))).round().tobytes() for key in range(100)}
    assert len(subsets) > 20, "of 36 that there are"


def test_each_kind_of_view_shows_one_of_the_patterns() -> None:
    """Averages over 4x4 px keep the smooth pattern and lose the fine one; their remainder the other way round."""

    def energies(added: np.ndarray) -> tuple[float, float]:
        coarse = added.reshape(8, 4, 8, 4, 3).mean(axis=(1, 3))
        rest = added - np.kron(coarse, np.ones((4, 4, 1)))
        return float((coarse**2).mean()), float((rest**2).mean())

    smooth_kept, smooth_rest = energies(change(Form.TEST, fine=1e-6))
    fine_kept, fine_rest = energies(change(Form.TEST, smooth=1e-6))
    assert smooth_kept > 5 * smooth_rest
    assert fine_rest > 5 * fine_kept


def test_both_are_seen_in_brightness_and_in_colour() -> None:
    for only in ({"fine": 1e-6}, {"smooth": 1e-6}):
        added = change(Form.TEST, **only)
        brightness = added.mean(axis=2, keepdims=True)
        assert brightness.std() > 1
        assert (added - brightness).std() > 1


@pytest.mark.parametrize(
    "wrong",
    [{"smooth": 0}, {"fine": 256}, {"smooth_periods": 17}, {"fine_periods": 0}, {"parts": 3}, {"parts": 0}],
)
def test_wrong_parameters_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        ATTACK.resolve(wrong, 1)
