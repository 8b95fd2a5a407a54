from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import render_gpu

RunScript = Callable[..., dict[str, Any]]
TOY = ["--toy", "--sizes", "32", "--batch", "2", "--batches", "1", "2", "--steps", "2", "--curve", "1", "2"]
QUICK = ["--seconds", "0", "--rounds", "1", "--compiler", "eager", "--runtimes", "torch", "onnxruntime-cuda"]


@pytest.mark.slow
def test_every_piece_is_measured_and_kept(
    run_script: RunScript, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = run_script("gpu_throughput", "--work", tmp_path, *TOY, *QUICK)
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
    capsys.readouterr()
    kept = json.loads((tmp_path / "gpu_throughput.pieces.json").read_text())
    del kept["made"]["lever batch"]
    (tmp_path / "gpu_throughput.pieces.json").write_text(json.dumps(kept))
    again = run_script("gpu_throughput", "--work", tmp_path, *TOY, *QUICK)["figures"]["pieces"]
    said = [line for line in capsys.readouterr().out.splitlines() if " s): " in line]
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
