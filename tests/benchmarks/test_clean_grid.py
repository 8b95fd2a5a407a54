"""`clean_grid.py`: the grid of whole jobs, and its tables."""

from __future__ import annotations

import copy
import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import render_clean


def rate(hits: int, count: int) -> dict[str, Any]:
    """A share with an interval, as a report has it."""
    return {
        "value": hits / count,
        "low": hits / count - 0.01,
        "high": hits / count + 0.01,
        "hits": hits,
        "count": count,
    }


def cell(attack: str = "badnets", seed: int = 1, **others: Any) -> dict[str, Any]:
    """A cell of the result file."""
    attacked = attack != "benign"
    before = {"clean_accuracy": rate(80, 100), "attack_success_rate": rate(99, 100) if attacked else None}
    after = {"clean_accuracy": rate(78 + seed, 100), "attack_success_rate": rate(seed, 100) if attacked else None}
    told = {"data": "cifar10", "images": 5000, "attack": attack, "labels": "all-to-one" if attacked else None}
    told |= {"rate": 0.1 if attacked else None, "real_rate": 0.1 if attacked else None, "seed": seed}
    told |= {"target": "cat", "half": "chosen", "options": "", "fired": True if attacked else None, "before": before}
    told |= {"anew": after if attacked else None, "after": after}
    told |= {"listed": 500, "added": [], "recall": rate(450, 500), "false_positive_rate": rate(45, 4500)}
    told |= {} if attacked else {"listed": 0, "recall": None, "false_positive_rate": None}
    told |= {"arch": "airnet", "size": None, "epochs": [12, 18], "variations": 2, "seconds": {"train": 90, "find": 30}}
    reference = {name: value for name, value in after.items() if value is not None}
    told |= {"clean_training": reference, "cores": 1, "processor": "a CPU", "commit": "abc", "date": "2026-11-27"}
    return told | others


def rows(table: str) -> list[list[str]]:
    """The cells of the first table in a text, without its head."""
    lines = [line for line in table.splitlines() if line.startswith("| ")]
    return [[each.strip() for each in line.strip("|").split("|")] for line in lines[1:]]


def test_seeds_share_a_row_and_shares_are_of_all_their_images() -> None:
    second = cell(seed=2) | {"recall": rate(0, 500)}
    table = render_clean.clean_short({"figures": {"cells": [cell(), second]}})
    row = ["cifar10, 5,000", "badnets", "45.0%", "1.0%", "80.0 (80.0-80.0) / 99.0 (99.0-99.0)"]
    assert rows(table) == [[*row, "79.5 (79.0-80.0) / 1.5 (1.0-2.0)", "79.5 (79.0-80.0) / 1.5 (1.0-2.0)", ""]]
    assert (
        "seeds 1, 2; 1 core of a CPU.) The settings of the detector were chosen on these pairs: cifar10 badnets."
        in table
    )


def test_held_out_pairs_are_not_named_as_chosen() -> None:
    table = render_clean.clean_short({"figures": {"cells": [cell(half="reported")]}})
    assert "were chosen on these pairs" not in table
    assert "None of them was chosen on these: cifar10 badnets." in table


def test_the_readme_shows_the_largest_runs_and_the_worst_outcomes() -> None:
    """Seven attacks that fired, of which two were defended against best, one that did not, and a smaller run."""
    names = ("badnets", "blended", "bpp", "wanet", "lf", "object", "two-scale")
    cells = [cell("benign"), cell("sig", fired=False), cell("badnets", images=1000)]
    for number, name in enumerate(names):
        one = cell(name)
        one["clean_training"] |= {"attack_success_rate": rate(0 if name != "lf" else 1, 100)}
        cells.append(one | {"after": one["after"] | {"attack_success_rate": rate(number, 100)}})
    table = render_clean.clean_short({"figures": {"cells": cells}})
    assert [row[1] for row in rows(table)] == ["benign", "bpp", "wanet", "lf", "object", "two-scale"]
    assert "6 of 10 rows of the [evidence](docs/evidence.md)" in table
    assert "rows of the" not in render_clean.clean_short({"figures": {"cells": [cell()]}})


def test_a_benign_run_has_no_attack_success_and_no_share_that_was_found() -> None:
    assert rows(render_clean.clean_short({"figures": {"cells": [cell("benign")]}})) == [
        ["cifar10, 5,000", "benign", "", "0.0%", "80.0", "79.0", "79.0", ""]
    ]


def test_mistakes_without_the_trigger_stand_beside_the_attack_success() -> None:
    measured = cell()
    measured["after"] |= {"benign_landing": rate(5, 100)}
    figures = {"figures": {"cells": [measured]}}
    assert rows(render_clean.clean_short(figures))[0][-1] == "5.0"
    assert rows(render_clean.clean_table(figures))[0][-2] == "5.0"


def test_an_attack_that_did_not_fire_is_marked_and_states_of_the_code_are_counted() -> None:
    cells = [cell(fired=False), cell("sig", commit="def")]
    table = render_clean.clean_table({"figures": {"cells": cells}})
    assert "| badnets (did not fire) |" in table
    assert "on 2 states of the code" in table


def test_intervals_stand_beside_the_figures_of_one_run_and_others_figures_below() -> None:
    table = render_clean.clean_table({"figures": {"cells": [cell()]}})
    assert "| 79.0 (78.0-80.0) / 1.0 (0.0-2.0) |" in table
    assert "| badnets | 91.3 / 95.0 | DBD 89.6 / 1.3 | FT 90.0 / 1.5 |" in table
    assert "BackdoorBench" not in render_clean.clean_table({"figures": {"cells": [cell(data="signs")]}})


@pytest.mark.slow
def test_a_job_is_measured_once_and_the_result_file_is_what_remembers_it(
    bars: tuple[Path, Path], tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENCHMARK_RESULTS", str(tmp_path))
    options = f"--arch airnet --epochs 1 --engine {tiny_model} --variations 1 --detector spectral"
    words = ["clean_grid.py", "--data", f"bars={bars[0]}:{bars[1]}", "--work", str(tmp_path / "work")]
    words += ["--count", "40", "--attacks", "benign", "badnets", "--options", options]
    monkeypatch.setattr(sys, "argv", words)
    result = tmp_path / "clean_grid.json"
    assert importlib.import_module("clean_grid").main() == 0
    figures = json.loads(result.read_text())["figures"]
    benign, badnets = figures["cells"]
    assert figures["failed"] == []
    assert [benign["attack"], badnets["attack"], badnets["images"], badnets["real_rate"]] == [
        "benign",
        "badnets",
        40,
        0.1,
    ]
    assert (benign["recall"], benign["fired"], badnets["recall"]["count"]) == (None, None, 4)
    assert badnets["epochs"] == [1, 2]
    assert (
        badnets["clean_training"]["attack_success_rate"]["count"] == badnets["before"]["attack_success_rate"]["count"]
    )
    assert {"train the teacher", "find suspects"} <= badnets["seconds"].keys()

    marked = copy.deepcopy(figures)
    marked["cells"][0]["listed"] = 7
    result.write_text(json.dumps({"figures": marked}))
    assert importlib.import_module("clean_grid").main() == 0
    assert json.loads(result.read_text())["figures"]["cells"] == marked["cells"]


def test_the_table_of_mirrored_images_says_which_classes_turned() -> None:
    """Of 30 images, 20 are recognised as they are and 11 in the mirror."""
    one = {"images": 10, "right": 10, "right_mirrored": 1, "lost": 9, "gained": 0}
    other = {"images": 20, "right": 10, "right_mirrored": 10, "lost": 2, "gained": 2}
    told = {"data": "signs", "attack": "benign", "rate": None, "labels": None, "classes": {"left": one, "stop": other}}
    told |= {"turned": ["left"], "mirrors": True, "cpu_s": 12.3}
    table = render_clean.mirrored_table(
        {"figures": {"seed": 1, "cells": [told]}, "machine": {"cores": 1, "processor": "a CPU"}}
    )
    assert rows(table) == [["signs", "benign", "2", "66.7% / 36.7%", "left", "yes", "12"]]
