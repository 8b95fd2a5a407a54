"""The whole job on a small suspect set, with a teacher whose backdoor was built in by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from threading import Event

import pytest
from suspect_set import COUNT, TRIGGERED

from diffclean.classifiers import checkpoints
from diffclean.errors import Interrupted
from diffclean.training.loop_config import LoopConfig
from diffclean.workflow.chain import Chain, Places, Step, run_chain
from diffclean.workflow.runner import Runner
from diffclean.workflow.steps import Distilling, Hands, Teaching

LOOP = LoopConfig(epochs=1, tensorboard=False, augment=False)


@pytest.fixture
def places(fooled: Path, suspect_run: Path, tmp_path: Path) -> Places:
    """The first teacher and the variations are there already."""
    return replace(Places.below(tmp_path / "out"), teacher=fooled, variations=suspect_run)


@pytest.fixture
def chain(suspect_set: Path, tiny_archs: None) -> Chain:
    return Chain(suspect_set, Teaching("tiny", LOOP), Distilling("tiny", LOOP), None, test=suspect_set)


def test_suspects_are_left_out_of_all_that_follows(chain: Chain, places: Places) -> None:
    runner = Runner(Hands())
    done = run_chain(replace(chain, detector="variation-drop"), places, runner)
    assert done.suspects is not None
    assert done.suspects.keys == TRIGGERED
    assert done.taught_by == places.teacher_anew
    kept = 3 * COUNT - len(TRIGGERED)
    assert [checkpoints.load(path).metrics["images"] for path in (places.teacher_anew, places.student)] == [kept, kept]
    steps = [Step.SUSPECTS, Step.TEACHER_ANEW, Step.STUDENT, Step.EVALUATION]
    assert list(done.seconds) == [str(step) for step in steps]
    assert done.teacher is not None
    assert done.teacher.images == 3 * COUNT


def test_without_a_detector_the_first_teacher_teaches_and_nothing_is_done_twice(chain: Chain, places: Places) -> None:
    done = run_chain(chain, places, Runner(Hands()))
    assert (done.suspects, done.taught_by) == (None, places.teacher)
    assert list(done.seconds) == [Step.STUDENT, Step.EVALUATION]
    again = run_chain(chain, places, Runner(Hands()))
    assert list(again.seconds) == [Step.EVALUATION]
    assert again.student == done.student


def test_a_stop_is_heard_before_the_next_step(chain: Chain, places: Places) -> None:
    stop = Event()
    stop.set()
    with pytest.raises(Interrupted):
        run_chain(chain, places, Runner(Hands(stop=stop)))
    assert not places.student.exists()
