"""Runtimes on an exported engine: they compute what torch computes, say what they are, and never stand in silently."""

from __future__ import annotations

import builtins
import logging
import shutil
from pathlib import Path
from types import ModuleType

import pytest
import torch
from small_models import saved

from diffclean.engine.manifest import read_engine_manifest
from diffclean.errors import DiffcleanError, MissingExtraError, UsageError
from diffclean.export.cache import ExportOptions, ensured_engine
from diffclean.export.onnx import example_inputs
from diffclean.families.micro import Micro
from diffclean.families.registry import recipe_for
from diffclean.runtime.choose import open_engine
from diffclean.runtime.openvino import best_precision


@pytest.mark.parametrize("batch", [1, 3, 8])
@pytest.mark.parametrize("name", ["onnxruntime", "openvino", "torch"])
def test_parity_with_torch(tiny_engine: Path, tiny_model: Path, name: str, batch: int) -> None:
    engine = open_engine(tiny_engine, name, "fp32", threads=1)
    assert (engine.runtime.name, engine.runtime.precision) == (name, "fp32")
    for place, component in Micro().load(tiny_model).components.items():
        inputs = example_inputs(component.inputs, batch, seed=batch)
        with torch.no_grad():
            expected = component.module(*(inputs[port.name] for port in component.inputs))
        found = engine.call(place, inputs)
        for want, have in zip(expected if isinstance(expected, tuple) else (expected,), found, strict=True):
            assert have.dtype == want.dtype
            assert have.shape == want.shape
            error = (have.double() - want.double()).abs().max()
            if want.dtype == torch.uint8:
                assert error <= 1
            else:
                assert error <= 1e-4 * want.double().abs().max()


@pytest.mark.parametrize("name", ["onnxruntime", "openvino", "torch"])
def test_finite_is_told_by_every_runtime(tiny_engine: Path, name: str) -> None:
    """Compilers may assume that there is no NaN; this graph is the one that must not."""
    sample = torch.zeros(4, 3, 16, 16)
    sample[1, 0, 0, 0], sample[2, 2, 9, 9] = float("nan"), float("-inf")
    for precision in ("fp32", "bf16") if name == "openvino" and best_precision() == "bf16" else ("fp32",):
        _, finite = open_engine(tiny_engine, name, precision, threads=1).call("vae_decoder", {"sample": sample})
        assert finite.tolist() == [True, False, False, True]


def test_auto_takes_the_best_and_says_which(tiny_engine: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        engine = open_engine(tiny_engine, "auto", threads=1)
    assert engine.runtime.name == "openvino"
    assert engine.runtime.precision == best_precision()
    assert f"Runtime openvino in {best_precision()}" in caplog.text
    assert engine.identity == f"{read_engine_manifest(tiny_engine).fingerprint[:16]}/openvino/{best_precision()}"


def without(monkeypatch: pytest.MonkeyPatch, *names: str, error: type[Exception] = ImportError) -> None:
    """As on a machine where importing these fails."""
    real = builtins.__import__

    def fake(name: str, *args: object, **kwargs: object) -> ModuleType:
        if name in names:
            raise error(f"cannot load lib{name}.so")
        return real(name, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", fake)


def test_auto_says_why_it_took_the_next(
    tiny_engine: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    without(monkeypatch, "openvino")
    with caplog.at_level(logging.INFO):
        engine = open_engine(tiny_engine, "auto", threads=1)
    assert engine.runtime.name == "onnxruntime"
    assert "Runtime onnxruntime in fp32 (no NVIDIA GPU for tensorrt, tensorrt-rtx, onnxruntime-cuda; " in caplog.text
    assert "openvino: it fails: ImportError: cannot load libopenvino.so" in caplog.text


def test_auto_passes_over_a_broken_library(
    tiny_engine: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Installed is not working: a plugin that does not load must not end the run, nor be hidden."""
    without(monkeypatch, "openvino", "onnxruntime", error=RuntimeError)
    with caplog.at_level(logging.INFO):
        engine = open_engine(tiny_engine, "auto", threads=1)
    assert engine.runtime.name == "torch"
    assert "cannot load libopenvino.so" in caplog.text
    assert "cannot load libonnxruntime.so" in caplog.text


def test_a_runtime_that_was_asked_for_is_never_replaced(tiny_engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "openvino", "onnxruntime")
    for name in ("openvino", "onnxruntime"):
        with pytest.raises(MissingExtraError, match=rf"{name} is not installed(.|\n)*pip install 'diffclean\[cpu\]'"):
            open_engine(tiny_engine, name)


def test_wishes_that_cannot_be_met(tiny_engine: Path) -> None:
    with pytest.raises(UsageError, match="Known: auto, tensorrt, tensorrt-rtx, onnxruntime-cuda, openvino, onnx"):
        open_engine(tiny_engine, "tensorflow")
    for name in ("onnxruntime", "onnxruntime-cuda", "tensorrt", "tensorrt-rtx"):
        with pytest.raises(
            UsageError, match=r"in fp32, and .* fp32 only, not bf16(.|\n)*export MODEL --precision bf16"
        ):
            open_engine(tiny_engine, name, "bf16")
    with pytest.raises(UsageError, match="openvino computes in fp32 or bf16, not in fp16"):
        open_engine(tiny_engine, "openvino", "fp16")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_without_a_gpu_each_says_what_it_lacks(tiny_engine: Path) -> None:
    for name in ("onnxruntime-cuda", "tensorrt", "tensorrt-rtx"):
        with pytest.raises(DiffcleanError, match=f"{name} .*needs an NVIDIA GPU: "):
            open_engine(tiny_engine, name)
    with pytest.raises(UsageError, match="torch computes on this CPU in fp32 or bf16, not in fp16"):
        open_engine(tiny_engine, "torch", "fp16")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_a_precision_that_nothing_here_has(tiny_engine: Path) -> None:
    with pytest.raises(DiffcleanError, match=r"No runtime works here: openvino: .*; onnxruntime: .*; torch: "):
        open_engine(tiny_engine, "auto", "fp16")


@pytest.mark.slow
def test_another_size_is_what_torch_runs_too(tmp_path: Path) -> None:
    """The engine says the size; the model's own would be another."""
    model = saved("sd-image-variations", tmp_path / "model")
    place, _ = ensured_engine(recipe_for(str(model)), ExportOptions(image_size=64), place=tmp_path / "engine")
    manifest = read_engine_manifest(place)
    assert manifest.image_size == 64
    found = {}
    for name in ("torch", "onnxruntime"):
        engine = open_engine(place, name, threads=1)
        (found[name],) = engine.call("image_encoder", example_inputs(manifest.components["image_encoder"].inputs, 2))
    assert torch.allclose(found["torch"], found["onnxruntime"], atol=1e-4)


def test_tensors_that_do_not_lie_in_one_piece(tiny_engine: Path) -> None:
    """A binding knows an address: strides have to be dissolved before."""
    inputs = example_inputs(read_engine_manifest(tiny_engine).components["unet"].inputs, 4)
    spread = {name: torch.stack([tensor, tensor], dim=-1)[..., 0] for name, tensor in inputs.items()}
    assert not spread["sample"].is_contiguous()
    for name in ("onnxruntime", "openvino", "torch"):
        engine = open_engine(tiny_engine, name, "fp32", threads=1)
        assert torch.equal(engine.call("unet", inputs)[0], engine.call("unet", spread)[0])


@pytest.mark.parametrize("name", ["onnxruntime", "openvino", "torch"])
def test_what_a_call_gave_is_not_changed_by_the_next(tiny_engine: Path, name: str) -> None:
    engine = open_engine(tiny_engine, name, "fp32", threads=1)
    ports = read_engine_manifest(tiny_engine).components["unet"].inputs
    (first,) = engine.call("unet", example_inputs(ports, 2, seed=0))
    before = first.clone()
    engine.call("unet", example_inputs(ports, 2, seed=1))
    assert torch.equal(first, before)


def test_precision_is_part_of_the_identity(tiny_engine: Path) -> None:
    names = {
        open_engine(tiny_engine, name, "fp32", threads=1).identity for name in ("openvino", "onnxruntime", "torch")
    }
    assert len(names) == 3


def test_a_flipped_byte_is_refused_before_a_runtime_sees_it(tiny_engine: Path, tmp_path: Path) -> None:
    engine = Path(shutil.copytree(tiny_engine, tmp_path / "engine"))
    path = engine / "unet/model.onnx"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    recorded = read_engine_manifest(engine).files["unet/model.onnx"]
    with pytest.raises(DiffcleanError, match=f"unet/model.onnx has sha256 .*, on record is {recorded[:12]}"):
        open_engine(engine, "onnxruntime")
    path.unlink()
    with pytest.raises(DiffcleanError, match=r"unet/model.onnx is missing"):
        open_engine(engine, "onnxruntime")


def test_torch_needs_the_model_as_it_was(tiny_engine: Path, tiny_model: Path, tmp_path: Path) -> None:
    engine = Path(shutil.copytree(tiny_engine, tmp_path / "engine"))
    text = (engine / "engine.json").read_text()
    (engine / "engine.json").write_text(text.replace(str(tiny_model), str(tmp_path / "gone")))
    with pytest.raises(DiffcleanError, match=r"gone or was changed(.|\n)*`runtime` onnxruntime"):
        open_engine(engine, "torch")
    assert open_engine(engine, "onnxruntime", threads=1).runtime.name == "onnxruntime"
