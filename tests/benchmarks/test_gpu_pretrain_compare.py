from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import render_gpu

RunScript = Callable[..., dict[str, Any]]
SMALL = "size = 16\nchannels = 8\nlayers = 1\nheads = 2\nbatch = 8\nwarmup_steps = 1\n"


@pytest.mark.slow
def test_recipes_are_trained_for_a_time_and_measured(
    undefended: dict[str, Any],
    grid_arguments: list[Any],
    bars: tuple[Path, Path],
    run_script: RunScript,
    tmp_path: Path,
) -> None:
    (tmp_path / "recipes.toml").write_text(f"[one]\n{SMALL}[two]\n{SMALL}low-resolution = 0.5\nminutes = 0.002\n")
    np.save(tmp_path / "images.npy", np.random.default_rng(0).integers(0, 256, (160, 16, 16, 3), np.uint8))
    work = Path(grid_arguments[5])
    clean, teacher = (next((work / "teachers").glob(f"{name}-*.pt")) for name in ("benign", "badnets"))
    manifest = next((work / "poisoned").glob("badnets-*/poison.json"))
    command = ["pretrain_compare", "--data", tmp_path / "images.npy", "--work", tmp_path / "work", "--minutes", "0.001"]
    command += ["--recipes", tmp_path / "recipes.toml", "--images", bars[1], "--clean", clean]
    command += ["--teacher", teacher, manifest, "--count", "6", "--sides", "16", "32", "--batch", "6"]
    command += ["--strengths", "0.2", "--steps", "1"]
    result = run_script(*command)
    found = result["figures"]["recipes"]
    assert [found[name]["config"]["minutes"] for name in ("one", "two")] == [0.001, 0.002]
    assert found["two"]["config"]["low_resolution"] == 0.5
    for name in ("one", "two"):
        assert found[name]["training"]["images"] == 8 * found[name]["training"]["steps"]
        assert (tmp_path / "work" / name / "quality-32.png").is_file()
        for side in ("16 px", "32 px"):
            (point,) = found[name][side]["points"]
            assert "survival" in point["badnets"]
    assert run_script(*command)["figures"] == result["figures"]  # nothing is trained or measured again
    assert "| two | 0.002 |" in render_gpu.pretrain_compare(result)
