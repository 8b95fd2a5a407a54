"""`mirrored`: whether a training may mirror images."""

from __future__ import annotations

from pathlib import Path
from threading import Event

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sides import LEFT, MIDDLE, RIGHT, draw_sides

from diffclean.errors import Interrupted
from diffclean.training.mirrored import ClassSeen, Mirrored, look_in_mirror


@pytest.mark.slow
def test_classes_that_are_each_others_mirror_images_have_turned(tmp_path: Path) -> None:
    classes = draw_sides(tmp_path / "data", 80, {"left": (LEFT,), "right": (RIGHT,), "middle": (MIDDLE,)})
    found = look_in_mirror(tmp_path / "data", classes)
    assert found.turned == ["left", "right"]
    assert not found.harmless
    assert "left, right are taken for something else" in found.told
    assert look_in_mirror(tmp_path / "data", classes) == found


@pytest.mark.slow
def test_classes_that_look_alike_in_the_mirror_have_not(tmp_path: Path) -> None:
    classes = draw_sides(tmp_path / "data", 80, {"sides": (LEFT, RIGHT), "middle": (MIDDLE,)})
    found = look_in_mirror(tmp_path / "data", classes)
    assert (found.turned, found.harmless, found.told) == ([], True, "")
    assert sum(seen.images for seen in found.classes.values()) > 20


def test_a_handful_of_images_says_nothing(tmp_path: Path) -> None:
    classes = draw_sides(tmp_path / "data", 5, {"left": (LEFT,), "right": (RIGHT,)})
    assert look_in_mirror(tmp_path / "data", classes) == Mirrored({})
    assert Mirrored({}).harmless


def test_it_can_be_stopped(tmp_path: Path) -> None:
    classes = draw_sides(tmp_path / "data", 40, {"left": (LEFT,), "right": (RIGHT,)})
    stop = Event()
    stop.set()
    with pytest.raises(Interrupted):
        look_in_mirror(tmp_path / "data", classes, stop=stop)


TURNED = ClassSeen(images=40, right=40, right_mirrored=2, lost=38, gained=0)


def test_one_class_alone_may_be_the_target_of_an_attack() -> None:
    other = ClassSeen(images=40, right=38, right_mirrored=36, lost=4, gained=2)
    assert Mirrored({"target": TURNED, "other": other}).harmless
    assert not Mirrored({"left": TURNED, "right": TURNED, "other": other}).harmless


@given(lost=st.integers(0, 9), gained=st.integers(0, 9))
def test_few_images_are_no_evidence(lost: int, gained: int) -> None:
    """Of nine images, even nine that are lost may be chance."""
    assert not ClassSeen(9, lost, gained, lost, gained).turned


def test_a_class_that_was_never_learned_cannot_turn() -> None:
    assert not ClassSeen(images=100, right=40, right_mirrored=2, lost=38, gained=0).turned
