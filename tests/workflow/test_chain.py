"""The whole job on a small suspect set, with a teacher whose backdoor was built in by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from threading import Event

import pytest
import torch
from suspect_set import COUNT, TRIGGERED

from diffclean.classifiers import checkpoints, networks
from diffclean.data.registry import open_source
from diffclean.data.suspects import JudgedClass, JudgedImage, SuspectList, read_list
from diffclean.errors import Interrupted
from diffclean.training.loop_config import LoopConfig
from diffclean.workflow.chain import run_chain
from diffclean.workflow.chain_config import Chain, Places, Step
from diffclean.workflow.runner import Runner
from diffclean.workflow.second_pass import passes_of, with_added
from diffclean.workflow.steps import Distilling, Hands, Teaching

LOOP = LoopConfig(epochs=1, tensorboard=False, augment=False)
KEYS = ("a1", "a2", "b1", "b2")


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


def test_a_detector_examines_images_at_the_size_at_which_classifiers_see_them(chain: Chain, places: Places) -> None:
    smaller = replace(chain, detector="loss-isolation", teaching=Teaching("tiny", LOOP, 20))
    run_chain(smaller, places, Runner(Hands()))
    assert read_list(places.suspects).settings["size"] == [20, 20]


def test_the_device_that_is_asked_for_reaches_every_step(
    chain: Chain, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a machine with a GPU, the detectors and the measurements took the GPU whatever `clean --device` said."""
    asked: list[str | None] = []
    pick = networks.pick_device

    def noted(name: str | None = None) -> torch.device:
        asked.append(name)
        return pick(name)

    monkeypatch.setattr(networks, "pick_device", noted)
    loop = replace(LOOP, device="cpu:0")
    on_device = replace(chain, device="cpu:0", teaching=Teaching("tiny", loop), distilling=Distilling("tiny", loop))
    steps = replace(on_device, detector="variation-drop", passes=1, measures_variations=True)
    done = run_chain(steps, places, Runner(Hands()))
    assert done.measured.variations is not None
    assert Step.SECOND_PASS in done.seconds
    assert len(asked) >= len(done.seconds)
    assert set(asked) == {"cpu:0"}


def test_without_a_detector_the_first_teacher_teaches_and_nothing_is_done_twice(chain: Chain, places: Places) -> None:
    done = run_chain(chain, places, Runner(Hands()))
    assert (done.suspects, done.taught_by) == (None, places.teacher)
    assert list(done.seconds) == [Step.STUDENT, Step.EVALUATION]
    again = run_chain(chain, places, Runner(Hands()))
    assert list(again.seconds) == [Step.EVALUATION]
    assert again.student == done.student


def test_a_second_pass_adds_what_the_first_list_missed(chain: Chain, places: Places) -> None:
    """The detector's list is there already: half of the poisoned images, and one that is not poisoned."""
    missed = {f"blue/{number:03d}.png" for number in range(0, COUNT, 10)}
    listed = (TRIGGERED - missed) | {"blue/001.png"}
    images = [JudgedImage(item.key, item.label, 0, 0, item.key in listed) for item in open_source(chain.data).items()]
    found = [JudgedClass(name, COUNT, len(listed) * (name == "blue"), 1, 0.5) for name in ("blue", "green", "red")]
    SuspectList("spectral", str(chain.data), "", found, images, {}).write(places.without(1))

    runner = Runner(Hands())
    twice = replace(chain, detector="spectral", passes=2)
    done = run_chain(twice, places, runner)
    assert done.suspects is not None
    assert done.suspects.keys == TRIGGERED | listed
    assert passes_of(read_list(places.suspects)) == [len(missed), 0]
    assert "A second pass added 10" in done.suspects.classes[0].why
    assert done.taught_by == places.anew(2)
    assert checkpoints.load(places.anew(2)).metrics["images"] == 3 * COUNT - len(TRIGGERED) - 1
    steps = [Step.TEACHER_ANEW, Step.SECOND_PASS, Step.SUSPECTS, Step.STUDENT, Step.EVALUATION]
    assert list(done.seconds) == [str(step) for step in steps]
    again = run_chain(twice, places, Runner(Hands()))
    assert list(again.seconds) == [Step.EVALUATION]
    assert again.taught_by == done.taught_by


def test_a_second_pass_adds_nothing_to_a_label_without_suspects() -> None:
    listed = SuspectList("isolate", "data", "", [], [JudgedImage(key, key[0], 0, 0, key == "a1") for key in KEYS], {})
    found = replace(listed, images=[replace(image, suspect=True, probability=0.9) for image in listed.images])
    longer = with_added(listed, found)
    assert longer.keys == {"a1", "a2"}
    assert passes_of(longer) == [1]
    assert passes_of(with_added(longer, found)) == [1, 0]


def test_a_stop_is_heard_before_the_next_step(chain: Chain, places: Places) -> None:
    stop = Event()
    stop.set()
    with pytest.raises(Interrupted):
        run_chain(chain, places, Runner(Hands(stop=stop)))
    assert not places.student.exists()
