"""The demo from end to end, on fewer and smaller pictures than its defaults and with a small engine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from threading import Event

import pytest

from diffclean.data.folder import ImageFolder
from diffclean.errors import DiffcleanError, Interrupted, UsageError
from diffclean.workflow.demo import DemoConfig, demo, table
from diffclean.workflow.signs import FACES


@pytest.fixture
def config(tmp_path: Path, tiny_model: Path) -> DemoConfig:
    return DemoConfig(
        out=tmp_path / "demo",
        train_images=10,
        test_images=5,
        size=24,
        arch="wrn-16-1",
        epochs=1,
        engine=str(tiny_model),
    )


def test_an_attack_that_does_not_fire_ends_the_story(config: DemoConfig) -> None:
    """And what was done until then is not done again, nor mixed with another demo."""
    stop = Event()
    stop.set()
    with pytest.raises(Interrupted):
        demo(config, stop=stop)
    with pytest.raises(DiffcleanError, match=r"did not fire: the teacher's attack success rate is \d") as raised:
        demo(config)
    assert "`epochs`" in raised.value.hint
    assert not (config.out / "student.pt").exists()
    written = (config.out / "teacher.pt").stat().st_mtime_ns
    with pytest.raises(DiffcleanError, match="did not fire"):
        demo(config)
    assert (config.out / "teacher.pt").stat().st_mtime_ns == written
    with pytest.raises(DiffcleanError, match="other settings"):
        demo(replace(config, train_images=11))


def test_what_makes_no_sense_is_said_before_any_work(config: DemoConfig) -> None:
    for change in ({"attack": "bogus"}, {"arch": "bogus"}, {"target": "bogus"}):
        with pytest.raises(UsageError, match="bogus"):
            demo(replace(config, **change))
    assert not config.out.exists()
    (config.out / "signs").mkdir(parents=True)
    with pytest.raises(DiffcleanError, match="something else"):
        demo(config)


@pytest.mark.slow
def test_the_whole_story(config: DemoConfig) -> None:
    """A wide patch on a quarter of the pictures is learnt within seconds."""
    whole = replace(config, attack="blended", rate=0.4, train_images=24, epochs=18, arch="resnet8-cifar")
    result = demo(whole)
    assert result.teacher.fired
    assert result.page.is_file()
    assert result.run.images == 24 * len(FACES)
    assert len(ImageFolder(whole.out / "signs-poisoned-variations").items()) == 24 * len(FACES)
    assert [row[0].split(",")[0] for row in table(result)] == ["teacher", "student"]
    assert set(result.seconds) == {
        "draw",
        "poison",
        "train the teacher",
        "make variations",
        "distil the student",
        "evaluate",
    }
    again = demo(whole)
    assert again.student == result.student
