"""Half precision on a CPU: what computes in it says so, and computes nearly the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from diffclean.engine.manifest import read_engine_manifest
from diffclean.errors import DiffcleanError
from diffclean.export.cache import ExportOptions, ensured_engine
from diffclean.export.onnx import PARITY_LIMITS, example_inputs
from diffclean.families.registry import recipe_for
from diffclean.runtime.choose import open_engine


def test_half_precision_of_torch(tiny_engine: Path) -> None:
    """fp32 at its doors, near to fp32, and not the same."""
    ports = read_engine_manifest(tiny_engine).components["unet"].inputs
    inputs = example_inputs(ports, 2)
    (exact,) = open_engine(tiny_engine, "torch", "fp32", threads=1).call("unet", inputs)
    engine = open_engine(tiny_engine, "torch", "bf16", threads=1)
    (rough,) = engine.call("unet", inputs)
    assert engine.runtime.precision == "bf16"
    assert rough.dtype == torch.float32
    assert 1e-5 < float((rough - exact).abs().max() / exact.abs().max()) < PARITY_LIMITS["bf16"]


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_graphs_in_half_precision_on_a_cpu(
    tiny_model: Path, tmp_path: Path, precision: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Every runtime that can says in what it computes, and computes nearly the same."""
    place, _ = ensured_engine(recipe_for(str(tiny_model)), ExportOptions(precision), place=tmp_path / "engine")
    inputs = example_inputs(read_engine_manifest(place).components["unet"].inputs, 2)
    (exact,) = open_engine(place, "torch", threads=1).call("unet", inputs)
    if precision == "bf16":
        with pytest.raises(DiffcleanError, match="ONNX Runtime on a CPU has no bf16"):
            open_engine(place, "onnxruntime")
    for name, expected in (("openvino", "fp32"), ("onnxruntime", "fp16"))[: 2 if precision == "fp16" else 1]:
        engine = open_engine(place, name, expected, threads=1)
        assert engine.runtime.precision == expected
        (found,) = engine.call("unet", inputs)
        assert (found - exact).abs().max() <= PARITY_LIMITS[precision] * exact.abs().max()
    assert open_engine(place, "torch", threads=1).runtime.precision == "fp32"
