from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import render_gpu

from diffclean.environment import gpus

pytest.importorskip("tensorrt_rtx")
RunScript = Callable[..., dict[str, Any]]


@pytest.mark.slow
@pytest.mark.skipif(bool(gpus()), reason="says what there is without a GPU")
def test_without_a_gpu_the_build_is_recorded_and_that_there_is_no_device(
    tiny_model: Path, run_script: RunScript, tmp_path: Path
) -> None:
    result = run_script("tensorrt_rtx_try", "--work", tmp_path, "--model", tiny_model)
    figures = result["figures"]
    assert "there is no NVIDIA driver" in figures["gpu"]
    assert "SM89" in figures["library"]["compute_capabilities"]
    (tries,) = figures["tries"].values()
    assert tries["build"]["ok"]
    assert tries["build"]["bytes"] > 0
    for step in ("run by diffclean", "run by the library"):
        assert not tries[step]["ok"]
        assert any(word in " ".join(tries[step]["said"]) for word in ("GPU", "CUDA", "cuda"))
    assert "run by the library | no |" in render_gpu.tensorrt_rtx(result)
