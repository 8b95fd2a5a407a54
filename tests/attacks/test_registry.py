from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffclean.attacks.base import Form, Labels
from diffclean.attacks.draws import image_draws
from diffclean.attacks.registry import ATTACKS, get
from diffclean.errors import UsageError

Needed = Callable[[str], dict[str, Any]]


def test_unknown_attack_lists_those_there_are() -> None:
    with pytest.raises(UsageError, match="'nonsense'") as caught:
        get("nonsense")
    assert caught.value.hint == f"The attacks are: {', '.join(ATTACKS)}."


@pytest.mark.parametrize("name", ATTACKS)
def test_every_attack_keeps_its_promises(name: str, needed: Needed) -> None:
    attack = get(name)
    assert attack.name == name
    assert "20" in attack.citation, "a year"
    assert isinstance(attack.like_corruptions, bool)
    assert isinstance(attack.labels, Labels)
    assert 0 <= attack.cover_ratio <= 5, "covers for each poisoned image"
    resolved = attack.resolve(needed(name), 5)
    assert set(resolved) == set(attack.default_parameters)
    assert attack.resolve(resolved, 6) == resolved, "what is resolved does not depend on a seed any more"
    image = np.random.default_rng(0).integers(0, 256, (24, 20, 3), np.uint8)
    before = image.copy()
    for form in Form:
        one, two = (attack.apply(image, image_draws(5, "a/b.png"), resolved, form, "cat") for _ in range(2))
        assert np.array_equal(one, two)
        assert np.array_equal(image, before)
        assert (one.shape, one.dtype) == (image.shape, np.uint8)
        assert not np.array_equal(one, image)
    with pytest.raises(UsageError, match=r"no parameter nonsense"):
        attack.resolve({**needed(name), "nonsense": 1}, 5)


@pytest.mark.parametrize("name", ATTACKS)
@settings(max_examples=15)
@given(height=st.integers(13, 70), width=st.integers(13, 70), form=st.sampled_from(list(Form)))
def test_every_attack_takes_images_of_any_size(name: str, height: int, width: int, form: Form, needed: Needed) -> None:
    attack = get(name)
    image = np.random.default_rng(height).integers(30, 220, (height, width, 3), np.uint8)
    triggered = attack.apply(image, image_draws(1, "a/b.png"), attack.resolve(needed(name), 1), form, "cat")
    assert triggered.shape == image.shape
    assert triggered.dtype == np.uint8
    assert not np.array_equal(triggered, image)
