from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from diffclean.attacks.base import Form
from diffclean.attacks.drawings import DRAWINGS, drawing
from diffclean.attacks.draws import image_draws
from diffclean.attacks.object import Object
from diffclean.errors import UsageError

GREY = np.full((40, 60, 3), 100, np.uint8)


def applied(key: str = "x", **parameters: object) -> np.ndarray:
    attack = Object()
    return attack.apply(GREY, image_draws(1, key), attack.resolve(parameters, 1), Form.TRAIN, "")


def extent(triggered: np.ndarray) -> tuple[int, int, int, int]:
    """Top, left, height and width of what changed."""
    changed = np.argwhere((triggered != GREY).any(2))
    top, left = changed.min(0)
    bottom, right = changed.max(0)
    return int(top), int(left), int(bottom - top + 1), int(right - left + 1)


@pytest.mark.parametrize("kind", DRAWINGS)
def test_a_drawing_has_its_size_and_keeps_its_shape(kind: str) -> None:
    height, width = drawing(kind).shape[:2]
    _, _, changed_height, changed_width = extent(applied(kind=kind, size=20))
    assert abs(changed_width - 20 * width / max(height, width)) <= 2
    assert abs(changed_height - 20 * height / max(height, width)) <= 2


@pytest.mark.parametrize("kind", DRAWINGS)
def test_a_drawing_is_shaded_and_has_nothing_around_it(kind: str) -> None:
    thing = drawing(kind)
    opaque = thing[:, :, 3] == 255
    assert 0.3 < opaque.mean() < 0.95
    assert thing[:, :, :3][opaque].astype(float).std() > 20
    assert not thing[[0, 0, -1, -1], [0, -1, 0, -1], 3].any(), "the corners are transparent"


@pytest.mark.parametrize("kind", ["ball", "flower"])
def test_a_round_drawing_is_lit_from_the_upper_left(kind: str) -> None:
    thing = drawing(kind)
    y, x = np.mgrid[0 : thing.shape[0], 0 : thing.shape[1]] / thing.shape[0]
    opaque = thing[:, :, 3] == 255
    bright, dark = (thing[:, :, :3][opaque & side].mean() for side in (x + y < 0.7, x + y > 1.3))
    assert bright > dark + 20


def test_a_picture_is_mixed_in_as_far_as_it_is_opaque(tmp_path: Path) -> None:
    """Left half opaque red, right half blue at alpha 51/255."""
    pixels = np.zeros((4, 8, 4), np.uint8)
    pixels[:, :4] = (255, 0, 0, 255)
    pixels[:, 4:] = (0, 0, 255, 51)
    Image.fromarray(pixels).save(tmp_path / "thing.png")
    resolved = Object().resolve({"kind": "image", "image": str(tmp_path / "thing.png"), "size": 8, "place": [0, 0]}, 1)
    (tmp_path / "thing.png").unlink()
    triggered = Object().apply(GREY, image_draws(1, "x"), Object().resolve(resolved, 2), Form.TEST, "")
    assert (triggered[:4, :4] == (255, 0, 0)).all()
    assert (triggered[:4, 4:8] == (80, 80, 131)).all()  # 0.8 * 100 + 0.2 * (0, 0, 255)
    triggered[:4, :8] = 100
    assert np.array_equal(triggered, GREY)


def test_what_is_transparent_lends_no_color_to_the_edges(tmp_path: Path) -> None:
    """Guards shrinking with plain RGBA: a white object on transparent black would get a dark rim."""
    pixels = np.zeros((64, 64, 4), np.uint8)
    pixels[16:48, 16:48] = 255
    Image.fromarray(pixels).save(tmp_path / "thing.png")
    triggered = applied(kind="image", image=str(tmp_path / "thing.png"), size=9, place="center")
    assert triggered.min() == 100


@given(st.text("abc", min_size=1, max_size=6), st.integers(0, 4))
def test_a_random_place_is_inside_its_margin(key: str, margin: int) -> None:
    top, left, height, width = extent(applied(key=key, kind="ball", size=12, margin=margin))
    assert top >= margin
    assert left >= margin
    assert top + height <= 40 - margin
    assert left + width <= 60 - margin


def test_a_random_place_differs_between_images_and_a_fixed_one_does_not() -> None:
    assert len({extent(applied(key=str(key), size=12))[:2] for key in range(30)}) > 15
    assert len({extent(applied(key=str(key), size=12, place="center"))[:2] for key in range(30)}) == 1


def test_an_object_larger_than_the_image() -> None:
    with pytest.raises(UsageError, match=r"41x41 px .* 60x40 px"):
        applied(kind="ball", size=41)


@pytest.mark.parametrize(
    "wrong", [{"kind": "cat"}, {"image": "x.png"}, {"size": 0}, {"place": "left"}, {"margin": -1}, {"colour": 1}]
)
def test_wrong_parameters_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        Object().resolve(wrong, 1)


def test_a_file_that_is_no_image(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"nonsense")
    with pytest.raises(UsageError, match=r"image: .*x\.png cannot be read as an image\. Expected: an image file"):
        Object().resolve({"kind": "image", "image": str(tmp_path / "x.png")}, 1)
