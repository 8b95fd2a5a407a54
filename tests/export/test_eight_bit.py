"""Weights in eight bits: which ones, how exactly, and what takes the graphs that hold them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx import TensorProto, numpy_helper
from small_denoiser import FLOATS, SHAPES, SIGNATURE, denoiser
from small_models import saved
from torch import Tensor, nn

from diffclean.cli.main import main
from diffclean.engine import tensorrt_library
from diffclean.engine.manifest import EngineManifest, read_engine_manifest
from diffclean.engine.tensorrt_key import engine_file
from diffclean.engine.tensorrt_library import FLAVOURS
from diffclean.engine.tensorrt_targets import Profile, least_arch
from diffclean.environment import Gpu
from diffclean.errors import DiffcleanError, ExitCode, UsageError
from diffclean.export import onnx as exporting
from diffclean.export.eight_bit import rounded, scales_of, store_in_eight_bits
from diffclean.export.onnx import STORED_LIMITS, onnx_from_component, parity_of_onnx, reference_outputs
from diffclean.families.base import Component, Port
from diffclean.families.registry import recipe_for
from diffclean.runtime.choose import Engine, open_engine, open_runtime
from diffclean.variation.settings import Opened, Settings

Capture = pytest.CaptureFixture[str]
CODES = {"int8": TensorProto.INT8, "fp8": TensorProto.FLOAT8E4M3FN}
STORED = {"widen", "narrow", "conv", "matmul"}
AXES = {"matmul": 1}
"""The axis of the output channels, if it is not the first."""


@pytest.fixture
def stored(tmp_path: Path) -> Callable[..., tuple[Path, dict[str, np.ndarray]]]:
    """`stored("int8", "fp16")`: the denoiser with weights in eight bits, and its weights before; its plain graph is
    called `plain.onnx`."""

    def made(weights: str, precision: str) -> tuple[Path, dict[str, np.ndarray]]:
        plain, path = tmp_path / "plain.onnx", tmp_path / "unet/model.onnx"
        before = denoiser(plain, precision)
        model = ir.load(plain)
        store_in_eight_bits(model, weights, "unet")
        path.parent.mkdir()
        ir.save(model, path)
        return path, before

    return made


@pytest.mark.parametrize("weights", ["int8", "fp8"])
@pytest.mark.parametrize("precision", sorted(FLOATS))
def test_the_large_inner_weights_are_stored_with_a_scale_for_each_output_channel(
    stored: Any, weights: str, precision: str
) -> None:
    path, before = stored(weights, precision)
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=precision != "bf16")  # ONNX itself has no convolution in bf16
    tensors = {each.name: each for each in model.graph.initializer}
    assert {name for name, each in tensors.items() if each.data_type == CODES[weights]} == {
        f"{name}_{weights}" for name in STORED
    }
    assert {*before, *tensors} - {*tensors} == STORED, "all others are as they were"
    for name in STORED:
        weight = before[name].astype(np.float32)
        scales = numpy_helper.to_array(tensors[f"{name}_scale"])
        assert scales.shape == (weight.shape[AXES.get(name, 0)],)
        assert scales.dtype == before[name].dtype, "the graph computes in its own precision"
        steps = along(scales, name, weight.ndim)
        off = np.abs(numpy_helper.to_array(tensors[f"{name}_{weights}"]).astype(np.float32) * steps - weight)
        # Half a step; three bits behind the first one, or half of the smallest number of the format.
        most = 0.5 * steps if weights == "int8" else np.maximum(np.abs(weight) / 16, steps / 1024)
        assert (off <= most * 1.0001).all(), name


@pytest.mark.parametrize("weights", ["int8", "fp8"])
def test_the_runtimes_of_cpus_round_nothing_but_the_weights(stored: Any, weights: str, tmp_path: Path) -> None:
    """Where they find such weights, both would round the inputs of a layer to eight bits as well, if they were let."""
    path, _ = stored(weights, "fp32")
    manifest = EngineManifest(
        "micro", {}, 8, {}, {"unet": SIGNATURE}, {}, {}, {"precision": "fp32", "weights": weights}
    )
    generator = torch.Generator().manual_seed(1)
    inputs = {
        "sample": torch.randn(3, 16, 8, 8, generator=generator),
        "timestep": torch.rand(3, generator=generator),
    }
    plain, exact = tmp_path / "plain", tmp_path / "exact"
    (plain / "unet").mkdir(parents=True)
    shutil.copy(tmp_path / "plain.onnx", plain / "unet/model.onnx")
    (exact / "unet").mkdir(parents=True)
    onnx.save(restored(tmp_path / "plain.onnx", path), exact / "unet/model.onnx")

    def run(name: str, engine: Path) -> Tensor:
        return open_runtime(name, engine, manifest, "fp32", 1).run("unet", inputs)[0]

    want, rounded = run("onnxruntime", plain), run("onnxruntime", exact)
    reach = want.abs().max()
    assert 0 < (rounded - want).abs().max() / reach < STORED_LIMITS[weights]
    for name in ("onnxruntime", "openvino"):
        assert (run(name, tmp_path) - rounded).abs().max() / reach < 1e-5, name


def restored(plain: Path, path: Path) -> onnx.ModelProto:
    """The plain graph with the weights that the other graph restores."""
    model = onnx.load(plain)
    tensors = {each.name: numpy_helper.to_array(each) for each in onnx.load(path).graph.initializer}
    for each in model.graph.initializer:
        if each.name in STORED:
            stored = next(tensors[f"{each.name}_{kind}"] for kind in CODES if f"{each.name}_{kind}" in tensors)
            steps = along(tensors[f"{each.name}_scale"], each.name, stored.ndim)
            each.CopyFrom(numpy_helper.from_array(stored.astype(np.float32) * steps, each.name))
    return model


def along(scales: np.ndarray, name: str, rank: int) -> np.ndarray:
    """Scales in the form in which they multiply a weight."""
    return scales.astype(np.float32).reshape([-1 if each == AXES.get(name, 0) else 1 for each in range(rank)])


@pytest.mark.parametrize("weights", ["int8", "fp8"])
def test_tensorrt_rtx_compiles_them_and_keeps_them_in_eight_bits(stored: Any, weights: str, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    from diffclean.export.tensorrt import build_engine, engine_key

    path, _ = stored(weights, "fp16")
    sizes = []
    for graph in (tmp_path / "plain.onnx", path):
        key = engine_key(graph, "tensorrt-rtx", "fp16", [Profile(1, 2, 2)], ((8, 9),), least=least_arch(weights))
        build_engine(graph, engine_file(graph.parent, "tensorrt-rtx"), key, SIGNATURE)
        sizes.append(engine_file(graph.parent, "tensorrt-rtx").stat().st_size)
    saved_bytes = sum(int(np.prod(SHAPES[name])) for name in STORED)
    assert sizes[0] - sizes[1] > 0.5 * saved_bytes


def test_scales_in_half_precision_cut_nothing_off() -> None:
    """They are rounded up: a smaller one would need more than 127 steps for the largest weight."""
    rng = np.random.default_rng(2)
    for dtype in (np.float16, ml_dtypes.bfloat16):
        for size in (1.0, 1e-4):  # at 1e-4 the scales are subnormal numbers in fp16
            weight = (size * rng.standard_normal((32, 64))).astype(dtype)
            weight[5] = 0
            scales = scales_of(weight, 0, "int8")
            assert (scales > 0).all()
            steps = rounded(weight, scales, 0, "int8").astype(np.float32)
            off = np.abs(steps * scales.astype(np.float32)[:, None] - weight.astype(np.float32))
            assert (off <= 0.5001 * scales.astype(np.float32)[:, None]).all()


def test_a_graph_without_a_large_layer_is_refused(tmp_path: Path) -> None:
    denoiser(tmp_path / "plain.onnx", "fp32")
    model = ir.load(tmp_path / "plain.onnx")
    for name in STORED:
        model.graph.initializers[name].replace_all_uses_with(model.graph.initializers["small"])
    with pytest.raises(DiffcleanError, match="no layer, other than its first and its last, with a weight of at least"):
        store_in_eight_bits(model, "int8", "unet")


def test_torch_to_a_graph_with_such_weights_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And a model that the rounding changes by too much is refused."""
    monkeypatch.setattr(exporting, "_EXTERNAL_FROM_BYTES", 1000)
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 64)).eval()
    component = Component(module, (Port("sample", "float32", (64,)),), (Port("predicted", "float32", (64,)),))
    expected, path = reference_outputs(component), tmp_path / "unet/model.onnx"
    onnx_from_component(component, path, "fp16", "int8")
    half, eight = 2 * 64 * 64, 64 * 64
    assert 2 * half + eight <= (path.parent / "model.onnx.data").stat().st_size < 3 * half
    found = parity_of_onnx(component, path, "fp16", expected, weights="int8")
    assert 1e-3 < found["max_relative"] <= STORED_LIMITS["int8"]
    monkeypatch.setitem(STORED_LIMITS, "int8", 1e-4)
    monkeypatch.setitem(exporting.PARITY_LIMITS, "fp16", 1e-4)
    with pytest.raises(DiffcleanError, match=r"unet: with weights in int8 its results differ from torch by"):
        parity_of_onnx(component, path, "fp16", expected, weights="int8")


CARD = Gpu("NVIDIA A10", (8, 6), 24 * 2**30, "13.0")


def test_fp8_is_compiled_only_for_gpus_that_read_it(monkeypatch: pytest.MonkeyPatch) -> None:
    trt = pytest.importorskip("tensorrt_rtx")
    rtx, least = FLAVOURS["tensorrt-rtx"], least_arch("fp8")
    assert rtx.targets(trt, None, least)[0][:2] == ((8, 9), (12, 0)), "not the portable form, which is for 8.0, too"
    assert rtx.targets(trt, ((8, 9),), least) == (((8, 9),), "")
    assert rtx.targets(trt, ((8, 6),), least_arch("int8")) == (((8, 6),), "")
    with pytest.raises(UsageError, match=r"in fp8 from compute capability 8.9 .* Asked for: 8.6(.|\n)*`weights` int8"):
        rtx.targets(trt, ((8, 6), (8, 9)), least)
    monkeypatch.setattr(tensorrt_library, "gpus", lambda: [CARD])
    with pytest.raises(DiffcleanError, match=r"Here is NVIDIA A10(.|\n)*`weights` int8"):
        FLAVOURS["tensorrt"].targets(None, None, least)


def test_the_dry_run_says_what_is_stored_how_and_what_it_saves(tiny_model: Path, tmp_path: Path, capsys: Any) -> None:
    found = []
    for more in ([], ["--weights", "int8"]):
        command = ["export", str(tiny_model), "-o", str(tmp_path / "E"), "--precision", "fp16", "--dry-run", *more]
        assert main(command) == ExitCode.DONE
        said = capsys.readouterr().out
        assert ("large weights of the denoiser in int8: would be made" in said) == bool(more)
        assert main([*command, "--json"]) == ExitCode.DONE
        found.append(json.loads(capsys.readouterr().out))
    assert [each["weights"] for each in found] == [None, "int8"]
    assert found[1]["bytes"] < 0.6 * found[0]["bytes"]
    assert main(["export", "sdxl-turbo", "--weights", "fp8", "--dry-run"]) == ExitCode.DONE
    said = capsys.readouterr().out
    assert "At most " in said, "which of its weights are large is not known before it is fetched"
    assert "of memory to run" not in said


def test_the_runtime_torch_refuses_an_engine_whose_weights_it_would_not_use(
    tiny_model: Path, tiny_engine: Path, tmp_path: Path
) -> None:
    """It runs the model itself, so the images would be those of another engine; so would the repetitions in fp32."""
    place = Path(shutil.copytree(tiny_engine, tmp_path / "engine"))
    manifest = read_engine_manifest(place)
    assert manifest.weights is None
    assert "weights" not in manifest.options, "engines of earlier versions are still good"
    replace(manifest, options={**manifest.options, "weights": "int8"}).write(place)
    with pytest.raises(UsageError, match="stores weights in int8, and the runtime torch would run the model"):
        open_engine(place, "torch", threads=1)
    half = replace(manifest, options={"precision": "fp16", "weights": "int8"})
    engine = Engine(place, half, _Half())  # type: ignore[arg-type]
    opened = Opened(recipe_for(str(tiny_model)), engine, Settings(engine=str(place)))
    assert opened.fallback is None
    assert replace(opened, engine=Engine(place, replace(half, options={"precision": "fp16"}), _Half())).fallback  # type: ignore[arg-type]


class _Half:
    precision = "fp16"


@pytest.mark.slow
@pytest.mark.parametrize("weights", ["int8", "fp8"])
def test_from_a_model_to_variations(
    weights: str, tmp_path: Path, draw_photos: Callable[..., Path], capsys: Capture
) -> None:
    """The whole way: a small U-Net of Stable Diffusion is exported, compiled for TensorRT-RTX and run here."""
    pytest.importorskip("tensorrt_rtx")
    model, place = saved("sd-img2img", tmp_path / "model"), tmp_path / "engine"
    command = ["export", str(model), "-o", str(place), "--precision", "fp16", "--weights", weights]
    assert main([*command, "--target", "openvino,tensorrt-rtx", "--arch", "8.9", "--json"]) == ExitCode.DONE
    found = json.loads(capsys.readouterr().out)
    assert found["weights"] == weights
    assert {(each["component"], each["target"]) for each in found["compiled"]} >= {
        ("unet", "openvino"),
        ("unet", "tensorrt-rtx"),
    }
    assert 2e-3 < found["components"]["unet"]["parity"]["max_relative"] <= STORED_LIMITS[weights]
    kinds = {name: _kinds(place / name / "model.onnx") for name in found["components"]}
    assert {name for name, each in kinds.items() if CODES[weights] in each} == {"unet"}, "the autoencoder is as it was"
    photos = draw_photos(tmp_path / "photos", ["a.png"])
    command = ["variate", str(photos), "-o", str(tmp_path / "out"), "--engine", str(place), "--steps", "2", "--json"]
    assert main([*command, "--runtime", "openvino"]) == ExitCode.DONE
    assert json.loads(capsys.readouterr().out)["made"] == 1
    assert json.loads((tmp_path / "out/run.json").read_text())["other"]["weights"] == weights


def _kinds(path: Path) -> set[int]:
    return {each.data_type for each in onnx.load(path).graph.initializer}
