from __future__ import annotations

from pathlib import Path

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


def test_the_table_compares_each_step_with_an_undefended_training() -> None:
    steps = [("train the teacher", 100.0, 2 * 10**13), ("find suspects", 150.0, 10**13)]
    figures = {
        **{"attack": "badnets", "rate": 0.1, "seed": 1, "images": 5000, "listed": 500},
        "steps": [{"name": name, "seconds": seconds, "flop": flop} for name, seconds, flop in steps],
        "protocol": {"variations": 9 * 10**13, "teacher": 3 * 10**13},
    }
    machine = {"cores": 1, "processor": "a CPU", "load_average_at_end": [2, 2, 2]}
    page = render.cost_table({"data": "bars", "machine": machine, "figures": figures})
    assert "1 core of a CPU, busy with other work" in page
    assert "| find suspects | 150 | 1.50x | 10.0 | 0.50x |" in page
    assert "| **all** | 250 | 2.50x | 30.0 | 1.50x |" in page
    assert "| **all** | 120 | 4.0x |" in page
    machine["load_average_at_end"] = [1, 1, 1]
    assert "busy" not in render.cost_table({"data": "bars", "machine": machine, "figures": figures})
