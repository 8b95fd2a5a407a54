"""The benchmark that judges recipes of `micro`, at toy size."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
from micro_recipes import choices
from render_recipes import micro_recipes

from diffclean.errors import Interrupted
from diffclean.pretraining.config import PretrainConfig
from diffclean.pretraining.corruptions import CORRUPTIONS
from diffclean.pretraining.pretrain import pretrain

RunScript = Callable[..., dict[str, Any]]


def unfinished_run(out: Path) -> Path:
    """A run with coarse views that was stopped after its first step."""
    stop = Event()
    stop.set()
    config = PretrainConfig(
        batch=8, size=16, channels=8, layers=1, heads=2, coarse_views=True, corruptions=CORRUPTIONS["varied"]
    )
    images = np.random.default_rng(0).integers(0, 256, (160, 16, 16, 3), np.uint8)
    with pytest.raises(Interrupted):
        pretrain(images, out, config, stop=stop)
    return out


@pytest.mark.slow
def test_runs_are_measured_and_settings_chosen(
    undefended: dict[str, Any],
    grid_arguments: list[Any],
    bars: tuple[Path, Path],
    tiny_model: Path,
    run_script: RunScript,
    tmp_path: Path,
) -> None:
    work = Path(grid_arguments[5])
    clean, teacher = (next((work / "teachers").glob(f"{name}-*.pt")) for name in ("benign", "badnets"))
    manifest = next((work / "poisoned").glob("badnets-*/poison.json"))
    run = unfinished_run(tmp_path / "run")
    command = ["micro_recipes", "--run", "first", tiny_model, "--run", "coarse", run, "--work", tmp_path / "work"]
    command += ["--images", bars[1], "--clean", clean, "--teacher", teacher, manifest, "--count", "8", "--batch", "8"]
    # OpenVINO crashed in the process's next use of it (SIGSEGV in test_pretrain_compare), for a cause not yet found.
    command += ["--strengths", "0.2", "0.8", "--looks", "4:0.3", "--runtime", "torch"]
    result = run_script(*command)
    runs = result["figures"]["runs"]
    assert [len(runs[name]["points"]) for name in ("first", "coarse")] == [2, 3]  # the first has no such looks
    assert runs["coarse"]["points"][2]["look"] == "4:0.3"
    assert runs["coarse"]["images"] == 8
    for each in runs["coarse"]["points"]:
        counted = [each[half]["label_preservation"]["variations"]["count"] for half in ("half 0", "half 1")]
        assert sum(counted) == each["label_preservation"]["variations"]["count"] == 8
    assert run_script(*command)["figures"] == result["figures"]  # nothing is measured again
    assert "| coarse | 8 | badnets |" in micro_recipes(result)


def point(strength: float, *of_halves: tuple[float, dict[str, float]]) -> dict[str, Any]:
    """A point with (label preservation, survival by attack) of each half."""
    found: dict[str, Any] = {"steps": 1, "strength": strength, "look": ""}
    for number, (kept, survival) in enumerate(of_halves):
        left = {name: {"survival": value} for name, value in survival.items()}
        found[f"half {number}"] = {"label_preservation": {"preservation": kept}, **left}
    return found


def test_one_half_chooses_and_the_other_reports() -> None:
    weak = point(0.1, (0.95, {"a": 0.5, "b": 0.0}), (0.96, {"a": 0.4, "b": 0.1}))
    strong = point(0.5, (0.92, {"a": 0.0, "b": 0.3}), (0.85, {"a": 0.1, "b": 0.6}))
    found = choices([weak, strong], ["a", "b"])["0.9"]
    assert found[0] == {
        "chosen_by": ["a"],  # on the first half of the images, where the strong one keeps enough
        "setting": {"steps": 1, "strength": 0.5, "look": ""},
        "label_preservation": 0.85,
        "survival": {"b": 0.6},
    }
    assert found[1]["setting"]["strength"] == 0.1
    assert found[1]["survival"] == {"a": 0.5}
    assert choices([point(0.5, (0.5, {"a": 0, "b": 0}), (0.5, {"a": 0, "b": 0}))], ["a", "b"])["0.7"][0] == {
        "chosen_by": ["a"],
        "setting": None,
    }
