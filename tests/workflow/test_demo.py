"""The demo from end to end, on fewer and smaller pictures than its defaults and with a small engine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from threading import Event

import pytest

from diffclean.errors import DiffcleanError, Interrupted, UsageError
from diffclean.progress import NoProgress
from diffclean.report.facts import read_facts
from diffclean.workflow.demo import DemoConfig, demo
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


def test_what_makes_no_sense_is_said_before_any_work(config: DemoConfig) -> None:
    for change in ({"attack": "bogus"}, {"arch": "bogus"}, {"target": "bogus"}):
        with pytest.raises(UsageError, match="bogus"):
            demo(replace(config, **change))
    assert not config.out.exists()
    (config.out / "signs").mkdir(parents=True)
    with pytest.raises(DiffcleanError, match="something else"):
        demo(config)


class StopsPoisoning(NoProgress):
    """Sets the stop when the drawn pictures are about to be poisoned."""

    def __init__(self) -> None:
        self.stop = Event()

    def begin(self, what: str, total: int | None, unit: str = "images", done: int = 0) -> None:
        """Look at the name of the task."""
        if what == "Poisoning":
            self.stop.set()


@pytest.mark.slow
def test_a_stopped_demo_is_not_mixed_with_another(config: DemoConfig) -> None:
    progress = StopsPoisoning()
    with pytest.raises(Interrupted):
        demo(config, progress, progress.stop)
    with pytest.raises(DiffcleanError, match="other settings"):
        demo(replace(config, train_images=11))


@pytest.mark.slow
def test_the_whole_story_ends_in_a_report_also_where_the_attack_does_not_work(config: DemoConfig) -> None:
    """So few pictures in so few epochs teach nobody a trigger."""
    done = demo(config)
    assert done.report.is_file()
    facts = read_facts(done.out)
    assert facts.outcome is not None
    assert facts.outcome.attack == "badnets"
    assert facts.outcome.fired is False
    assert "did not work on the teacher" in done.verdict
    assert sum(facts.counts.classes.values()) == 10 * len(FACES)
    assert demo(config).measured == done.measured
