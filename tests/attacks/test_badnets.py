import numpy as np
import pytest

from diffclean.attacks.badnets import KINDS, PLACES, BadNets, patch
from diffclean.errors import UsageError

GREY = np.full((20, 32, 3), 100, np.uint8)


def applied(image: np.ndarray = GREY, seed: int = 1, **parameters: object) -> np.ndarray:
    attack = BadNets()
    return attack.apply(image, np.random.default_rng(seed), attack.resolve(parameters, seed))


@pytest.mark.parametrize(
    ("place", "top", "left"),
    [("top-left", 0, 0), ("top-right", 0, 29), ("bottom-left", 17, 0), ("bottom-right", 17, 29)],
)
def test_changes_the_patch_and_nothing_else(place: str, top: int, left: int) -> None:
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
    assert patch("checkerboard", 3, 0)[:, :, 0].tolist() == [[255, 0, 255], [0, 255, 0], [255, 0, 255]]
    large = patch("checkerboard", 9, 0)
    assert np.array_equal(large, np.kron(patch("checkerboard", 3, 0), np.ones((3, 3, 1), np.uint8)))


def test_random_kind_is_one_draw_for_all_images() -> None:
    one, other = applied(seed=1, kind="random", pattern_seed=7), applied(seed=2, kind="random", pattern_seed=7)
    assert np.array_equal(one, other)
    assert not np.array_equal(one, applied(kind="random", pattern_seed=8))


def test_random_place_follows_the_image_and_stays_inside() -> None:
    places = set()
    for seed in range(40):
        changed = np.argwhere((applied(seed=seed, kind="white", size=3, place="random", margin=1) != 100).any(2))
        assert len(changed) == 9
        assert changed.min() >= 1
        assert (changed.max(0) <= (18, 30)).all()
        places.add(tuple(changed[0]))
    assert len(places) > 10


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", PLACES)
def test_every_combination_keeps_shape_and_type(kind: str, place: str) -> None:
    triggered = applied(kind=kind, place=place)
    assert triggered.shape == GREY.shape
    assert triggered.dtype == np.uint8
    assert (triggered != GREY).any()


def test_a_patch_larger_than_the_image() -> None:
    assert applied(size=20).shape == GREY.shape
    with pytest.raises(UsageError, match=r"21 px .* 32x20 px"):
        applied(size=21)
    with pytest.raises(UsageError, match="does not fit"):
        applied(size=18, margin=2)


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "pink"},
        {"size": 0},
        {"size": -3},
        {"size": 2.5},
        {"size": float("nan")},
        {"size": float("inf")},
        {"size": True},
        {"size": "3"},
        {"place": "middle"},
        {"margin": -1},
        {"margin": True},
        {"pattern_seed": "x"},
        {"colour": 1},
    ],
)
def test_wrong_parameters_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        BadNets().resolve(wrong, 1)
