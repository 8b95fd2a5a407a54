from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from diffclean.attacks.badnets import KINDS, BadNets, patch
from diffclean.attacks.base import Form
from diffclean.attacks.draws import image_draws
from diffclean.attacks.place import NAMES
from diffclean.errors import UsageError

GREY = np.full((20, 32, 3), 100, np.uint8)


def applied(image: np.ndarray = GREY, seed: int = 1, **parameters: object) -> np.ndarray:
    attack = BadNets()
    return attack.apply(image, image_draws(seed, "x"), attack.resolve(parameters, seed), Form.TRAIN, "")


@pytest.mark.parametrize(
    ("place", "top", "left"),
    [
        ("top-left", 0, 0),
        ("top-right", 0, 29),
        ("bottom-left", 17, 0),
        ("bottom-right", 17, 29),
        ("center", 8, 14),
        ([0, 1], 17, 0),
        ([1, 0.5], 8, 29),
    ],
)
def test_changes_the_patch_and_nothing_else(place: object, top: int, left: int) -> None:
    triggered = applied(kind="white", size=3, place=place)
    expected = GREY.copy()
    expected[top : top + 3, left : left + 3] = 255
    assert np.array_equal(triggered, expected)
    assert (GREY == 100).all(), "the image that was given is not changed"


def test_margin_and_share_of_the_shorter_side() -> None:
    changed = np.argwhere((applied(kind="black", size=0.2, place="top-left", margin=2) != 100).any(2))
    assert changed.min(0).tolist() == [2, 2]
    assert changed.max(0).tolist() == [5, 5]  # a fifth of 20 px is 4 px


def test_a_share_is_at_least_one_pixel() -> None:
    assert (applied(kind="white", size=0.001) != 100).any(2).sum() == 1


def test_checkerboard_has_three_cells_a_side() -> None:
    board = {"kind": "checkerboard"}
    assert patch(3, board)[:, :, 0].tolist() == [[255, 0, 255], [0, 255, 0], [255, 0, 255]]
    assert np.array_equal(patch(9, board), np.kron(patch(3, board), np.ones((3, 3, 1), np.uint8)))


def test_random_kind_is_one_draw_for_all_images() -> None:
    one, other = applied(seed=1, kind="random", pattern_seed=7), applied(seed=2, kind="random", pattern_seed=7)
    assert np.array_equal(one, other)
    assert not np.array_equal(one, applied(kind="random", pattern_seed=8))


def test_a_patch_of_any_color() -> None:
    assert (applied(kind="color", size=2)[-2:, -2:] == (255, 255, 0)).all()
    assert (applied(kind="color", size=2, color=[1, 2, 3])[-2:, -2:] == (1, 2, 3)).all()


def test_an_image_as_patch_travels_in_the_parameters(tmp_path: Path) -> None:
    path = tmp_path / "logo.png"
    Image.fromarray(np.array([[[255, 0, 0], [0, 255, 0]]], np.uint8).repeat(2, 0)).save(path)
    resolved = BadNets().resolve({"kind": "image", "image": str(path), "size": 2}, 1)
    path.unlink()
    triggered = BadNets().apply(GREY, image_draws(1, "x"), BadNets().resolve(resolved, 2), Form.TEST, "")
    assert triggered[-2:, -2:].tolist() == [[[255, 0, 0], [0, 255, 0]]] * 2


@given(st.integers(0, 10_000), st.integers(0, 3), st.integers(1, 8))
def test_random_place_stays_inside_its_margin(seed: int, margin: int, size: int) -> None:
    changed = np.argwhere((applied(seed=seed, kind="white", size=size, place="random", margin=margin) != 100).any(2))
    assert len(changed) == size**2
    assert changed.min() >= margin
    assert (changed.max(0) <= (19 - margin, 31 - margin)).all()


def test_random_place_reaches_every_place() -> None:
    places = {
        tuple(np.argwhere((applied(seed=seed, kind="white", size=18, place="random") != 100).any(2))[0])
        for seed in range(400)
    }
    assert places == {(y, x) for y in range(3) for x in range(15)}


@pytest.mark.parametrize("kind", KINDS[:-1])
@pytest.mark.parametrize("place", NAMES)
def test_every_combination_keeps_shape_and_type(kind: str, place: str) -> None:
    triggered = applied(kind=kind, place=place)
    assert triggered.shape == GREY.shape
    assert triggered.dtype == np.uint8
    assert (triggered != GREY).any()


def test_a_patch_larger_than_the_image() -> None:
    assert applied(size=20).shape == GREY.shape
    with pytest.raises(UsageError, match=r"(?s)21x21 px .* 32x20 px.*-p size=0.1"):
        applied(size=21)
    with pytest.raises(UsageError, match="does not fit"):
        applied(size=18, margin=2)


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "pink"},
        {"kind": ["white"]},
        {"size": 0},
        {"size": -3},
        {"size": 2.5},
        {"size": float("nan")},
        {"size": float("inf")},
        {"size": True},
        {"size": "3"},
        {"place": "middle"},
        {"place": [0, 2]},
        {"place": [0]},
        {"margin": -1},
        {"margin": True},
        {"color": "red"},
        {"color": [1, 2, 256]},
        {"image": "logo.png"},
        {"kind": "image"},
        {"image": "nowhere.png", "kind": "image"},
        {"pattern_seed": "x"},
        {"colour": 1},
    ],
)
def test_wrong_parameters_are_refused(wrong: dict[str, object]) -> None:
    name = "image" if "kind" in wrong and wrong["kind"] == "image" else next(iter(wrong))
    with pytest.raises(UsageError, match=name):
        BadNets().resolve(wrong, 1)
