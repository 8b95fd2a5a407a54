"""Mistakes are told together."""

import pytest

from diffclean.attacks.badnets import BadNets
from diffclean.attacks.blended import Blended
from diffclean.attacks.check import Mistakes
from diffclean.errors import DiffcleanError, UsageError


def test_all_wrong_parameters_are_told_at_once() -> None:
    with pytest.raises(UsageError) as caught:
        BadNets().resolve({"kind": "pink", "size": -1, "place": "middle", "margin": 0.5, "sise": 3}, 1)
    lines = caught.value.message.splitlines()
    assert lines == [
        "badnets has no parameter sise.",
        "badnets: kind must be one of checkerboard, white, black, color, random, image, not 'pink'.",
        "badnets: size must be a number of pixels, or a share of the image below 1, not -1.",
        "badnets: place must be one of top-left, top-right, bottom-left, bottom-right, center, random, or [x, y] "
        "with shares from 0 to 1, not 'middle'.",
        "badnets: margin must be an integer of at least 0, not 0.5.",
    ]
    assert caught.value.hint.startswith("Its parameters and their defaults are: kind=checkerboard, ")


def test_ranges_are_part_of_the_message() -> None:
    with pytest.raises(UsageError, match="alpha must be a number above 0 and at most 1, not 2"):
        Blended().resolve({"alpha": 2}, 1)


def test_mistakes_collects_usage_errors_and_nothing_else() -> None:
    mistakes = Mistakes()
    with mistakes:
        raise UsageError("One.", "Try: 1")
    with mistakes:
        pass
    with mistakes:
        raise UsageError("Two.", "Try: 1")
    with pytest.raises(DiffcleanError, match="not usage"), mistakes:
        raise DiffcleanError("not usage")
    with pytest.raises(UsageError) as caught:
        mistakes.tell()
    assert (caught.value.message, caught.value.hint) == ("One.\nTwo.", "Try: 1")
    Mistakes().tell()
