"""Random numbers of attacks: the same for ever, and unrelated where the names differ."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from diffclean.attacks.draws import Draws, image_draws, noise, pattern_draws


def test_draws_are_the_same_for_ever() -> None:
    """Guards manifests written by older releases."""
    draws = image_draws(1, "a/b.png")
    assert (draws.integer(1000), draws.integer(1000)) == GOLDEN_INTEGERS
    assert (draws.uniform(2) * 2**32).tolist() == GOLDEN_WORDS
    assert draws.subset(3, 16) == GOLDEN_SUBSET
    assert noise(1, (2, 2)).tolist() == [[252, 222], [48, 122]]


GOLDEN_INTEGERS = (713, 735)
GOLDEN_WORDS = [373469783, 1569590597]
GOLDEN_SUBSET = [7, 8, 14]


def test_they_follow_seed_and_key() -> None:
    names = [(1, "a/b.png"), (2, "a/b.png"), (1, "a/c.png"), (12, "a/b.png")]
    assert len({image_draws(seed, key).integer(2**60) for seed, key in names}) == 4
    assert image_draws(1, "a/b.png").integer(2**60) == image_draws(1, "a/b.png").integer(2**60)
    assert pattern_draws(1).integer(2**60) != pattern_draws(2).integer(2**60)


def test_uniform_numbers_are_uniform() -> None:
    numbers = Draws(b"x").uniform(100, 100)
    assert numbers.shape == (100, 100)
    assert abs(numbers.mean() - 0.5) < 0.01
    assert abs(numbers.std() - 12**-0.5) < 0.01
    assert 0 <= numbers.min() < 0.01
    assert 0.99 < numbers.max() < 1


def test_integers_reach_every_value() -> None:
    draws = Draws(b"x")
    assert {draws.integer(5) for _ in range(100)} == set(range(5))


@given(st.integers(0, 20), st.integers(0, 20), st.binary(max_size=4))
def test_a_subset_has_its_size_and_no_doubles(one: int, other: int, name: bytes) -> None:
    count, of = min(one, other), max(one, other)
    subset = Draws(name).subset(count, of)
    assert len(set(subset)) == count
    assert set(subset) <= set(range(of))


def test_every_subset_comes_up() -> None:
    draws = Draws(b"x")
    assert {tuple(draws.subset(2, 4)) for _ in range(200)} == {(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)}


def test_noise_is_uniform_and_follows_the_seed() -> None:
    levels = noise(3, (64, 64, 3)).astype(float)
    assert abs(levels.mean() - 127.5) < 2
    assert abs(levels.std() - 73.9) < 2
    assert not np.array_equal(noise(3, (8, 8, 3)), noise(4, (8, 8, 3)))
