"""A job that is stopped or killed comes to the same outcome as one that was left alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from threading import Event

import pytest

from diffclean.classifiers import checkpoints
from diffclean.errors import Interrupted
from diffclean.progress import NoProgress
from diffclean.workflow.clean import CleanResult, clean
from diffclean.workflow.clean_config import CleanConfig
from diffclean.workflow.prepare import prepare
from diffclean.workflow.steps import Hands


@pytest.fixture
def config(shapes: tuple[Path, Path], tiny_archs: None, tiny_model: Path, tmp_path: Path) -> CleanConfig:
    return CleanConfig(
        data=shapes[0],
        out=tmp_path / "job",
        arch="tiny",
        epochs=2,
        engine=str(tiny_model),
        variations=1,
        detector="spectral",
        self_test=False,
        cleaned="none",
    )


class StopsAt(NoProgress):
    """Sets the stop when the task of that number begins."""

    def __init__(self, number: int, stop: Event) -> None:
        self.left, self.stop = number, stop

    def begin(self, what: str, total: int | None, unit: str = "images", done: int = 0) -> None:
        """One more task."""
        self.left -= 1
        if self.left == 0:
            self.stop.set()


def weights(path: Path) -> dict[str, object]:
    return {name: value.tolist() for name, value in checkpoints.load(path).model.state_dict().items()}


def finished(config: CleanConfig) -> CleanResult:
    return clean(prepare(config, Hands()), Hands())


@pytest.mark.slow
def test_stopped_again_and_again_it_comes_to_the_same_student(config: CleanConfig) -> None:
    alone = replace(config, out=config.out.with_name("alone"))
    finished(alone)
    stops = 0
    for number in (1, 2, 2, 3, 3, 4, 4, 5, 5):
        stop = Event()
        prepared = prepare(config, Hands())
        try:
            clean(prepared, Hands(StopsAt(number, stop), stop))
            break
        except Interrupted:
            stops += 1
    assert stops >= 3
    done = finished(config)
    assert done.student is not None
    assert weights(done.student) == weights(alone.out / "student.pt")


@pytest.mark.slow
@pytest.mark.parametrize("step", ["find suspects", "distil the student"])
def test_killed_in_a_step_it_comes_to_the_same_student(config: CleanConfig, step: str) -> None:
    """By SIGKILL, in a process of its own, when `state.json` says that the step has begun."""
    config = replace(config, arch="wrn-16-1")
    alone = replace(config, out=config.out.with_name("alone"))
    finished(alone)
    options = {"-o": config.out, "--engine": config.engine, "--arch": config.arch, "--epochs": config.epochs}
    options |= {"--variations": 1, "--detector": config.detector, "--cleaned": "none"}
    words = [str(word) for option in options.items() for word in option]
    command = [sys.executable, "-m", "diffclean.cli.main", "clean", str(config.data), "--no-self-test", *words]
    process = subprocess.Popen(command, env=os.environ, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    while process.poll() is None and not _has_begun(config.out, step):
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.05)
    process.kill()
    process.wait()
    assert _has_begun(config.out, step)
    done = finished(config)
    assert done.student is not None
    assert weights(done.student) == weights(alone.out / "student.pt")


def _has_begun(out: Path, step: str) -> bool:
    if not (out / "state.json").is_file():
        return False
    outcomes = json.loads((out / "state.json").read_text())["outcomes"]
    return any(entry["step"] == step for entry in outcomes.values())
