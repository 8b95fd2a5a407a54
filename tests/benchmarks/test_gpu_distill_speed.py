from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import render_gpu

RunScript = Callable[..., dict[str, Any]]


def test_ours_and_timms_take_turns(bars: tuple[Path, Path], run_script: RunScript, tmp_path: Path) -> None:
    command = ["distill_speed", "--images", bars[0], "--work", tmp_path, "--arch", "test_resnet", "--batch", "8"]
    result = run_script(*command, "--epochs", "2", "--rounds", "1", "--precision", "fp32", "--workers", "1")
    figures = result["figures"]
    assert (figures["device"], figures["images"], figures["side"]) == ("cpu", 40, 16)
    assert list(figures["median"]) == ["on line", "cached", "train", "timm", "timm in memory"]
    assert all(rate > 0 for rate in figures["median"].values())
    assert figures["over_timm"]["timm"] == 1
    assert "on a CPU" in render_gpu.distill_speed(result)
