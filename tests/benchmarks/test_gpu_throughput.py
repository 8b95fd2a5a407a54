from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import render_gpu

TESTS = Path(__file__).parents[1]
TOY = ["--toy", "--sizes", "32", "--batch", "2", "--batches", "1", "2", "--steps", "2", "--curve", "1", "2"]
QUICK = ["--seconds", "0", "--rounds", "1", "--compiler", "eager", "--runtimes", "torch", "onnxruntime-cuda"]


def run(work: Path) -> tuple[dict[str, Any], str]:
    """What the script writes and says; its compiler and profiler stay in a process of their own."""
    script = [sys.executable, str(TESTS.parent / "benchmarks" / "gpu" / "gpu_throughput.py"), "--work", str(work)]
    environment = os.environ | {"BENCHMARK_RESULTS": str(work), "PYTHONPATH": str(TESTS / "support")}
    done = subprocess.run([*script, *TOY, *QUICK], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads((work / "gpu_throughput.json").read_text()), done.stdout


@pytest.mark.slow
def test_every_piece_is_measured_and_kept(tmp_path: Path) -> None:
    result, _ = run(tmp_path)
    assert result["figures"]["failed"] == {}
    pieces = result["figures"]["pieces"]
    (compare,) = [piece for name, piece in pieces.items() if name.startswith("compare")]
    assert [point["steps"] for point in compare["curve"]] == [1, 2]
    assert all(point["images_per_second"].keys() == {"stock", "torch"} for point in compare["curve"])
    assert list(compare["left_out"]) == ["onnxruntime-cuda"]
    assert pieces["work 32"]["unet"] > pieces["work 32"]["image_encoder"] > 0
    levers = {name.removeprefix("lever ") for name in pieces if name.startswith("lever ")}
    torch_alone = {"none", "channels_last", "CUDA graph", "compile", "cuDNN benchmark", "as shipped", "all"}
    assert levers == torch_alone | {"VAE in fp32", "batch", "guidance"}
    assert len(pieces["lever guidance"]) == 3
    for name in ("stock", "as shipped", "compiled"):
        assert sum(pieces[f"profile {name}"]["groups"].values()) == pytest.approx(1)
    kept = json.loads((tmp_path / "gpu_throughput.pieces.json").read_text())
    del kept["made"]["lever batch"]
    (tmp_path / "gpu_throughput.pieces.json").write_text(json.dumps(kept))
    repeated, out = run(tmp_path)
    again = repeated["figures"]["pieces"]
    said = [line for line in out.splitlines() if " s): " in line]
    assert len(said) == 1
    assert said[0].startswith("lever batch")
    assert {name: again[name] for name in kept["made"]} == kept["made"]
    table = render_gpu.throughput(result)
    assert "| steps at 32 px | stock | torch |" in table
    assert "Left out: onnxruntime-cuda: DiffcleanError: it needs an NVIDIA GPU" in table
    assert "| guidance | " in table


def test_kernels_are_told_by_their_names() -> None:
    from gpu_profile import group_of

    found = {
        "sm90_xmma_fprop_implicit_gemm_f16f16_f16f32_f32_nhwckrsc_nhwc": "convolution",
        "nvjet_hsh_256x128_64x4_1x2_h_bz_coopA_NTN": "matrix product",
        "sm80_xmma_gemm_f16f16_f16f32_f32_tn_n": "matrix product",
        "void cutlass::device_kernel<flash::enable_sm90>": "attention",
        "triton_poi_fused_convolution_silu_3": "elementwise",
        "triton_red_fused_native_group_norm_0": "normalisation",
        "void at::native::(anonymous namespace)::RowwiseMomentsCUDAKernel<c10::Half>": "normalisation",
        "void at::native::vectorized_elementwise_kernel<4, silu>": "elementwise",
        "void cudnn::ops::nchwToNhwcKernel<__half>": "layout and copies",
        "Memcpy DtoD (Device -> Device)": "layout and copies",
        "something else": "other",
    }
    assert {name: group_of(name) for name in found} == found
