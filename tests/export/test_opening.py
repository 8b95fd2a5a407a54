"""What a runtime wants compiled is compiled before it is opened."""

from __future__ import annotations

from pathlib import Path

import pytest

from diffclean.engine.manifest import read_engine_manifest
from diffclean.engine.tensorrt_targets import Profile
from diffclean.export import opening
from diffclean.export.forms import CompileOptions
from diffclean.export.opening import open_compiled
from diffclean.families.registry import load_recipe
from diffclean.runtime import choose, probe, tensorrt


def test_tensorrt_is_compiled_for_this_gpu_first(
    tiny_engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For the recipe's batch, or the one that is asked for; and then it is the runtime."""
    asked: list[CompileOptions] = []
    monkeypatch.setattr(opening, "compile_engine", lambda place, options: asked.append(options))
    monkeypatch.setattr(choose, "probe_one", lambda name: probe.RuntimeStatus(name, True, "H200"))
    monkeypatch.setattr(tensorrt, "TensorRt", lambda *args: args)
    opened = open_compiled(tiny_engine, "tensorrt", batch=5).runtime
    assert opened == (tiny_engine, read_engine_manifest(tiny_engine), "tensorrt", "fp32")
    open_compiled(tiny_engine, "tensorrt-rtx")
    usual = load_recipe("micro").defaults["batch"]
    assert asked == [
        CompileOptions(("tensorrt",), Profile(1, 5, 5), accept=True),
        CompileOptions(("tensorrt-rtx",), Profile(1, usual, usual), accept=True),
    ]
