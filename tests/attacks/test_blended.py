from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from diffclean.attacks.base import noise
from diffclean.attacks.blended import Blended
from diffclean.errors import UsageError

ATTACK = Blended()


def applied(image: np.ndarray, seed: int = 1, **parameters: object) -> np.ndarray:
    return ATTACK.apply(image, np.random.default_rng(), ATTACK.resolve(parameters, seed))


def test_worked_example() -> None:
    pattern = noise(1, (4, 4, 3)).astype(float)
    image = np.full((4, 4, 3), 50, np.uint8)
    assert np.array_equal(applied(image), np.rint(0.8 * 50 + 0.2 * pattern).astype(np.uint8))


def test_noise_is_the_same_for_ever() -> None:
    """Guards manifests written by older releases."""
    assert noise(1, (2, 2)).tolist() == GOLDEN


GOLDEN = [[252, 222], [48, 122]]


def test_noise_is_uniform_and_follows_the_seed() -> None:
    levels = noise(3, (64, 64, 3)).astype(float)
    assert abs(levels.mean() - 127.5) < 2
    assert abs(levels.std() - 73.9) < 2
    assert not np.array_equal(noise(3, (8, 8, 3)), noise(4, (8, 8, 3)))


@given(st.floats(0.01, 1), st.integers(0, 255))
def test_stays_between_the_image_and_the_pattern(alpha: float, level: int) -> None:
    image, pattern = np.full((5, 6, 3), level, np.uint8), noise(1, (5, 6, 3))
    blended = applied(image, alpha=alpha)
    assert (blended >= np.minimum(image, pattern)).all()
    assert (blended <= np.maximum(image, pattern)).all()


def test_alpha_one_is_the_pattern() -> None:
    image = np.zeros((5, 6, 3), np.uint8)
    assert np.array_equal(applied(image, alpha=1), noise(1, (5, 6, 3)))


def test_an_image_file_as_pattern_travels_in_the_parameters(tmp_path: Path) -> None:
    path = tmp_path / "pattern.png"
    Image.new("RGB", (8, 8), (200, 0, 100)).save(path)
    resolved = ATTACK.resolve({"pattern": str(path), "alpha": 0.5}, 1)
    path.unlink()
    again = ATTACK.resolve(resolved, 2)
    assert again == resolved
    blended = ATTACK.apply(np.zeros((16, 12, 3), np.uint8), np.random.default_rng(), again)
    assert (blended == (100, 0, 50)).all()


@pytest.mark.parametrize(
    "wrong",
    [{"alpha": 0}, {"alpha": 1.5}, {"alpha": "x"}, {"pattern": 3}, {"pattern": "nowhere.png"}, {"pattern": "png:AAAA"}],
)
def test_wrong_parameters_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        ATTACK.resolve(wrong, 1)
