"""`robustness.py` and `robustness_curve.py`, which share what they make."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import render_gpu

RunScript = Callable[..., dict[str, Any]]


def test_undefended_cells(undefended: dict[str, Any]) -> None:
    cells = undefended["figures"]["cells"]
    assert [(cell["attack"], cell["defence"]) for cell in cells] == [("benign", "none"), ("badnets", "none")]


def test_a_curve_changes_one_factor_at_a_time_and_makes_nothing_twice(
    undefended: dict[str, Any], grid_arguments: list[Any], run_script: RunScript
) -> None:
    work = Path(grid_arguments[5])
    teachers = {path: path.stat().st_mtime_ns for path in (work / "teachers").glob("*.pt")}
    values = ["--strengths", "0.2", "0.5", "--steps", "1", "--variations", "1", "2", "--temperatures", "4", "10"]
    command = ["robustness_curve", *grid_arguments, "--attacks", "badnets", *values]
    result = run_script(*command)
    figures = result["figures"]
    assert figures["defaults"] == {"strength": 0.2, "steps": 1, "variations": 1, "temperature": 10.0}
    asked = [(point["factor"], point["value"]) for point in figures["points"]]
    factors = ["strength", "strength", "steps", "variations", "variations", "temperature", "temperature"]
    assert asked == list(zip(factors, [0.2, 0.5, 1, 1, 2, 4, 10], strict=True))
    cells = {point: each["cells"][0] for point, each in zip(asked, figures["points"], strict=True)}
    default = cells["strength", 0.2]
    assert all(cells[point] == default for point in (("steps", 1), ("variations", 1), ("temperature", 10)))
    # A cell each for the default, strength 0.5, two variations and temperature 4; one undefended, and the benign one.
    assert len(list((work / "cells").glob("*.json"))) == 6
    assert len(list((work / "students").glob("*.pt"))) == 4
    assert {path: path.stat().st_mtime_ns for path in (work / "teachers").glob("*.pt")} == teachers
    assert run_script(*command)["figures"] == figures
    table = render_gpu.robustness_curve(result)
    assert "| strength | 0.2 (default) |" in table
    assert "| variations | 2 |" in table
