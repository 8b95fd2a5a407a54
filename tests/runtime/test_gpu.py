"""What runs on a GPU. What needs one is marked `gpu`; the rest sees that nothing stands in silently."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from diffclean.engine.manifest import read_engine_manifest
from diffclean.environment import Gpu
from diffclean.errors import DiffcleanError
from diffclean.export.onnx import example_inputs
from diffclean.families.micro import Micro
from diffclean.runtime import probe
from diffclean.runtime.choose import open_engine
from diffclean.runtime.onnxruntime import PROVIDERS, assert_provider


class Node(SimpleNamespace):
    op_type: str


def session(used: str, *nodes: tuple[str, str]) -> SimpleNamespace:
    """An ONNX Runtime session as far as it says who computes what."""
    parts = [SimpleNamespace(ep_name=who, get_nodes=lambda kind=kind: [Node(op_type=kind)]) for kind, who in nodes]
    return SimpleNamespace(get_providers=lambda: [used], get_provider_graph_assignment_info=lambda: parts)


def test_the_provider_in_use_is_asserted() -> None:
    """ONNX Runtime falls back to the CPU without an error, in whole or operator by operator."""
    cuda, cpu = PROVIDERS["cuda"], PROVIDERS["cpu"]
    assert_provider("unet", session(cuda, ("Conv", cuda), ("Shape", cpu)), cuda)
    with pytest.raises(DiffcleanError, match=f"unet runs on {cpu}, not on {cuda}"):
        assert_provider("unet", session(cpu), cuda)
    with pytest.raises(DiffcleanError, match=f"unet does not run on {cuda} alone: Conv on {cpu}"):
        assert_provider("unet", session(cuda, ("Conv", cpu), ("Conv", cuda)), cuda)


def test_both_wheels(tiny_engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "package_version", lambda name: "1.20" if "onnxruntime" in name else None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "Stream", lambda: SimpleNamespace(cuda_stream=1))
    with pytest.raises(DiffcleanError, match=r"both installed(.|\n)*pip uninstall -y onnxruntime onnxruntime-gpu"):
        open_engine(tiny_engine, "onnxruntime-cuda")


H200 = Gpu("NVIDIA H200", (9, 0), 150 * 2**30, "13.0")


def test_a_gpus_torch_comes_before_what_runs_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    assert probe.auto_order() == probe.ORDER or torch.cuda.is_available()
    monkeypatch.setattr(probe, "gpus", lambda: [H200])
    on_gpu = SimpleNamespace(cuda=SimpleNamespace(is_available=lambda: True, get_device_name=lambda index: "H200"))
    monkeypatch.setattr(probe, "import_module", lambda name: on_gpu)
    assert probe.auto_order() == (
        *("tensorrt", "tensorrt-rtx", "onnxruntime-cuda", "torch", "openvino", "onnxruntime"),
    )
    on_gpu.cuda.is_available = lambda: False  # a torch without CUDA
    on_gpu.version = SimpleNamespace(cuda=None)
    assert probe.auto_order() == probe.ORDER


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("name", ["onnxruntime-cuda", "torch"])
def test_parity_on_a_gpu(tiny_engine: Path, tiny_model: Path, name: str) -> None:
    """At several batch sizes, and again: what was recorded is replayed."""
    if not (status := probe.probe_one(name)).usable:
        pytest.skip(f"{name}: {status.reason}")
    engine = open_engine(tiny_engine, name, "fp32")
    assert engine.runtime.device == "cuda"
    model = Micro().load(tiny_model)
    for seed, batch in enumerate([4, 1, 4, 3]):
        for place, component in model.components.items():
            inputs = example_inputs(component.inputs, batch, seed)
            with torch.no_grad():
                expected = component.module(*inputs.values())
            found = engine.call(place, {key: tensor.cuda() for key, tensor in inputs.items()})
            for want, have in zip(expected if isinstance(expected, tuple) else (expected,), found, strict=True):
                assert (have.dtype, have.shape, have.device.type) == (want.dtype, want.shape, "cuda")
                error = (have.cpu().double() - want.double()).abs().max()
                assert error <= (1 if want.dtype == torch.uint8 else 1e-3 * want.double().abs().max())


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("name", ["onnxruntime-cuda", "torch"])
def test_on_a_gpu_too_a_call_does_not_change_what_another_gave(tiny_engine: Path, name: str) -> None:
    if not (status := probe.probe_one(name)).usable:
        pytest.skip(f"{name}: {status.reason}")
    engine = open_engine(tiny_engine, name)
    ports = read_engine_manifest(tiny_engine).components["unet"].inputs
    first, second = ({n: t.cuda() for n, t in example_inputs(ports, 4, seed).items()} for seed in (0, 1))
    (one,) = engine.call("unet", first)
    (two,) = engine.call("unet", second)
    (again,) = engine.call("unet", first)
    assert torch.equal(one, again)
    assert not torch.equal(one, two)


@pytest.mark.gpu
@needs_gpu
def test_auto_takes_the_gpu(tiny_engine: Path) -> None:
    assert open_engine(tiny_engine).runtime.device == "cuda"
