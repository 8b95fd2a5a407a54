from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import render
import torch
from cost import counting
from operations import of_component

from diffclean.families.base import Component, Port
from diffclean.workflow.runner import Runner
from diffclean.workflow.steps import Hands


def test_operations_are_counted_step_by_step(tmp_path: Path) -> None:
    counted: dict[str, int] = {}
    runner: Runner = counting(counted)(Hands())
    network = torch.nn.Sequential(torch.nn.Linear(20, 30), torch.nn.ReLU(), torch.nn.Linear(30, 5))

    def answer() -> torch.Tensor:
        with torch.no_grad():
            return network(torch.ones(10, 20))

    runner.do("answer", answer, tmp_path / "none")
    runner.do("learn", lambda: network(torch.ones(10, 20)).sum().backward(), tmp_path / "none")
    first, second = 2 * 10 * 20 * 30, 2 * 10 * 30 * 5
    assert counted == {"answer": first + second, "learn": 2 * first + 3 * second}, "nobody needs the input's gradient"
    assert set(runner.seconds) == set(counted)


def test_operations_of_a_component_are_those_of_one_image() -> None:
    port = Port("sample", "float32", (3, 8, 8))
    convolution = torch.nn.Conv2d(3, 5, 3, padding=1)
    assert of_component(Component(convolution, (port,), (port,))) == 2 * 8 * 8 * 5 * 3 * 3 * 3


@pytest.mark.slow
def test_the_job_and_the_protocol(bars: tuple[Path, Path], run_script: Any, tmp_path: Path) -> None:
    found = run_script("cost", "--work", tmp_path, "--data", f"cifar10={bars[0]}:{bars[1]}", "--count", 40)
    steps = {step["name"]: step for step in found["steps"]}
    assert next(iter(steps)) == "train the teacher"
    assert steps["make variations"]["flop"] > 0
    assert steps["train the teacher"]["flop"] > 0
    protocol = found["protocol"]
    assert protocol["student"] * 3 == protocol["teacher"] * 4, "a student asks its teacher once an image"
    page = render.cost_table({"data": "bars", "machine": {"cores": 1, "processor": "a CPU"}, "figures": found})
    assert "| **all** |" in page
    assert "computed and not run" in page
