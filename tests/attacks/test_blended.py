from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from diffclean.attacks.base import Form
from diffclean.attacks.blended import Blended
from diffclean.attacks.draws import Draws, noise
from diffclean.errors import UsageError

ATTACK = Blended()


def applied(image: np.ndarray, seed: int = 1, **parameters: object) -> np.ndarray:
    return ATTACK.apply(image, Draws(b""), ATTACK.resolve(parameters, seed), Form.TRAIN, "")


def test_worked_example() -> None:
    pattern = noise(1, (4, 4, 3)).astype(float)
    image = np.full((4, 4, 3), 50, np.uint8)
    assert np.array_equal(applied(image), np.rint(0.8 * 50 + 0.2 * pattern).astype(np.uint8))


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
    blended = ATTACK.apply(np.zeros((16, 12, 3), np.uint8), Draws(b""), again, Form.TRAIN, "")
    assert (blended == (100, 0, 50)).all()


def test_a_natural_picture_needs_no_file() -> None:
    black = np.zeros((32, 32, 3), np.uint8)
    drawn = applied(black, alpha=1, pattern="picture")
    assert np.array_equal(applied(black, alpha=0.2, pattern="picture"), np.rint(0.2 * drawn).astype(np.uint8))
    assert drawn.std() > 30
    assert not np.array_equal(drawn, applied(black, seed=2, alpha=1, pattern="picture"))
    resolved = ATTACK.resolve({"pattern": "picture"}, 1)
    assert ATTACK.resolve(resolved, 2) == resolved
    large = applied(np.zeros((64, 64, 3), np.uint8), alpha=1, pattern="picture").astype(float)
    halved = large.reshape(32, 2, 32, 2, 3).mean(axis=(1, 3))
    assert np.abs(halved - drawn).mean() < 6, "the same picture on an image of another size"


def test_a_transparent_pattern_lies_on_white(tmp_path: Path) -> None:
    Image.new("RGBA", (8, 8), (200, 0, 100, 0)).save(tmp_path / "pattern.png")
    assert (applied(np.zeros((8, 8, 3), np.uint8), pattern=str(tmp_path / "pattern.png"), alpha=1) == 255).all()


def test_a_pattern_lies_as_people_see_it(tmp_path: Path) -> None:
    """A camera's file that is turned by its EXIF orientation: left becomes top."""
    sideways = Image.fromarray(np.array([[[255, 0, 0], [0, 0, 255]]], np.uint8).repeat(2, 0))
    exif = Image.Exif()
    exif[0x0112] = 6
    sideways.save(tmp_path / "pattern.png", exif=exif)
    triggered = applied(np.zeros((2, 2, 3), np.uint8), pattern=str(tmp_path / "pattern.png"), alpha=1)
    assert triggered.tolist() == [[[255, 0, 0]] * 2, [[0, 0, 255]] * 2]


def test_a_large_pattern_is_shrunk_before_it_travels(tmp_path: Path) -> None:
    Image.new("RGB", (2000, 1000)).save(tmp_path / "pattern.png")
    from diffclean.attacks.pattern import picture

    resolved = ATTACK.resolve({"pattern": str(tmp_path / "pattern.png")}, 1)
    assert picture(resolved["pattern"]).shape == (256, 512, 4)


@pytest.mark.parametrize(
    "wrong",
    [{"alpha": 0}, {"alpha": 1.5}, {"alpha": "x"}, {"pattern": 3}, {"pattern": "nowhere.png"}, {"pattern": "png:AAAA"}],
)
def test_wrong_parameters_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        ATTACK.resolve(wrong, 1)
