"""The self-test on drawn shapes, with networks that take no time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import pytest

from diffclean.data.atomic import WriteError
from diffclean.data.registry import open_source
from diffclean.training.loop_config import LoopConfig
from diffclean.variation.settings import Settings
from diffclean.workflow import self_test as self_test_room
from diffclean.workflow.chain_config import Chain
from diffclean.workflow.self_test import ATTACKS, draw, self_test
from diffclean.workflow.steps import Distilling, Hands, Teaching

LOOP = LoopConfig(epochs=1, tensorboard=False, augment=False)


@pytest.fixture
def chain(shapes: tuple[Path, Path], tiny_archs: None, tiny_model: Path) -> Chain:
    settings = Settings(engine=str(tiny_model), full_names=True)
    return Chain(
        shapes[0], Teaching("tiny", LOOP), Distilling("tiny", LOOP), settings, detector="spectral", digest="the shapes"
    )


@pytest.mark.slow
def test_each_trigger_goes_the_same_way_as_the_data(chain: Chain, tmp_path: Path) -> None:
    found = self_test(chain, (), 90, tmp_path / "self-test", Hands())
    assert [row.attack for row in found.rows] == list(ATTACKS)
    assert not all(row.resembles_training for row in found.rows), "one is unlike the generator's training"
    for row in found.rows:
        assert row.recall is not None
        assert row.recall.count == round(0.1 * found.images)
        assert row.before.attack_success_rate is not None
        assert row.after.attack_success_rate is not None
        assert row.after.clean_accuracy is not None
        assert row.after.clean_accuracy.count == 18, "a fifth is held back where there is no test set"
    assert not any((tmp_path / "self-test" / attack).exists() for attack in ATTACKS), "what is not needed is removed"
    written = [
        path.stat().st_mtime_ns for path in sorted((tmp_path / "self-test").glob("*.json")) if path.stem in ATTACKS
    ]
    assert self_test(chain, (), 90, tmp_path / "self-test", Hands()) == found
    assert written == [
        path.stat().st_mtime_ns for path in sorted((tmp_path / "self-test").glob("*.json")) if path.stem in ATTACKS
    ]


def test_a_full_disk_is_no_outcome_of_an_attack(
    chain: Chain, tmp_path: Path, file_size_limit: Callable[[int], AbstractContextManager[None]]
) -> None:
    """It was recorded as an attack that cannot be tried on this data, and the same command never tried it again."""
    with file_size_limit(3000), pytest.raises(WriteError):
        self_test(chain, (), 30, tmp_path / "self-test", Hands())
    assert not (tmp_path / "self-test" / f"{ATTACKS[0]}.json").exists()


def test_the_sample_has_some_of_each_class_and_nothing_that_is_left_out(chain: Chain, tmp_path: Path) -> None:
    left_out = frozenset(f"lying/{number:03d}.png" for number in range(30))
    sample = draw(chain, left_out, 60, tmp_path)
    train, test = open_source(sample.train).items(), open_source(sample.test).items()
    assert {item.label for item in train} == {item.label for item in test} == {"lying", "standing", "square"}
    keys = [item.key for item in (*train, *test)]
    assert len(keys) == len(set(keys)) == 60
    assert not left_out & set(keys)
    assert sample.images == len(train)
    assert sample.held_back


def test_a_class_of_one_image_keeps_it_for_training(chain: Chain, tmp_path: Path) -> None:
    left_out = frozenset(item.key for item in open_source(chain.data).items() if item.label == "lying")
    sample = draw(chain, left_out - {min(left_out)}, 60, tmp_path)
    train, test = open_source(sample.train).items(), open_source(sample.test).items()
    assert [item.key for item in train if item.label == "lying"] == [min(left_out)]
    assert {item.label for item in test} == {"standing", "square"}


def test_of_a_large_test_set_a_part_of_each_class_is_used(
    chain: Chain, shapes: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each attack classifies it several times, so that its size would decide how long the self-test takes."""
    tested = replace(chain, test=shapes[1])
    every = {item.key for item in open_source(shapes[1]).items()}
    whole = draw(tested, frozenset(), 60, tmp_path / "whole")
    assert {item.key for item in open_source(whole.test).items()} == every
    assert not whole.held_back
    monkeypatch.setattr(self_test_room, "_MOST_TESTED", 9)
    part = list(open_source(draw(tested, frozenset(), 60, tmp_path / "part").test).items())
    assert Counter(item.label for item in part) == {"lying": 3, "standing": 3, "square": 3}
    assert {item.key for item in part} < every
