"""TensorRT as a runtime. What needs a GPU is marked `gpu`; the rest sees that nothing is called that is not there."""

from __future__ import annotations

import ast
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import onnx
import onnx_ir
import pytest
import torch
from onnx import TensorProto, helper
from small_denoiser import SIGNATURE, denoiser

import diffclean
from diffclean.engine.manifest import ComponentEntry, EngineManifest, read_engine_manifest
from diffclean.engine.tensorrt_key import engine_file, load_key
from diffclean.engine.tensorrt_library import FLAVOURS, Flavour
from diffclean.engine.tensorrt_targets import Profile, least_arch
from diffclean.environment import gpus
from diffclean.errors import DiffcleanError
from diffclean.export.eight_bit import store_in_eight_bits
from diffclean.export.onnx import example_inputs
from diffclean.export.tensorrt import build_engine, engine_key
from diffclean.families.base import Port
from diffclean.families.registry import family_named
from diffclean.runtime.onnxruntime import OnnxRuntime
from diffclean.runtime.tensorrt import TensorRt, usable_key

trt = pytest.importorskip("tensorrt_rtx")

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")

# What the code calls each of the library's objects.
OBJECTS = {
    "trt": trt,
    "builder": trt.Builder,
    "network": trt.INetworkDefinition,
    "parser": trt.OnnxParser,
    "error": trt.ParserError,
    "config": trt.IBuilderConfig,
    "profile": trt.IOptimizationProfile,
    "self._runtime": trt.Runtime,
    "engine": trt.ICudaEngine,
    "part.engine": trt.ICudaEngine,
    "self.engine": trt.ICudaEngine,
    "context": trt.IExecutionContext,
    "self._context": trt.IExecutionContext,
    "self._config": trt.IRuntimeConfig,
    "self._cache": trt.IRuntimeCache,
}
FILES = ("export/tensorrt.py", "engine/tensorrt_library.py", "export/tensorrt_progress.py", "runtime/tensorrt.py")
# Names that stand for something else as well, and what is theirs there.
OTHERS = {"error": {"message", "splitlines"}, "engine": {"exists", "is_file"}}


def used(file: str) -> Iterator[tuple[str, str]]:
    """Every `object.attribute` of a file whose object is one of the library's."""
    tree = ast.parse((Path(diffclean.__file__).parent / file).read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            base = ast.unparse(node.value)
            if base in OBJECTS or base.startswith("trt."):
                yield base, node.attr


@pytest.mark.parametrize("file", FILES)
def test_all_that_is_called_is_in_the_library(file: str) -> None:
    """No GPU here has run it: at least there is no name in it that the library does not have."""
    found = set(used(file))
    assert found
    for base, name in found:
        owner: Any = OBJECTS.get(base)
        if owner is None:
            owner = trt
            for part in base.split(".")[1:]:
                owner = getattr(owner, part)
        assert hasattr(owner, name) or name in OTHERS.get(base, ()), f"{base}.{name}"


def test_the_check_of_names_sees_the_calls_that_matter() -> None:
    assert {
        ("context", "execute_async_v3"),
        ("context", "set_tensor_address"),
        ("context", "set_device_memory"),
        ("context", "is_stream_capturable"),
        ("part.engine", "device_memory_size_v2"),
        ("self._config", "create_runtime_cache"),
        ("self._runtime", "deserialize_cuda_engine"),
        ("trt.DynamicShapesKernelSpecializationStrategy", "EAGER"),
    } <= set(used("runtime/tensorrt.py"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_without_a_gpu_it_says_so(tiny_engine: Path) -> None:
    with pytest.raises(DiffcleanError, match="TensorRT-RTX needs an NVIDIA GPU: "):
        TensorRt(tiny_engine, read_engine_manifest(tiny_engine), "tensorrt-rtx", "fp32")


RTX = FLAVOURS["tensorrt-rtx"]
VALUE = Port("x", "float32", (4,))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A component compiled for Ampere and Ada."""
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ("batch", 4)) for name in "xy"]
    made = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "test", ends[:1], ends[1:])
    path = tmp_path / "unet/model.onnx"
    path.parent.mkdir()
    onnx.save(helper.make_model(made, ir_version=10, opset_imports=[helper.make_opsetid("", 20)]), path)
    key = engine_key(path, RTX.name, "fp16", [Profile(4, 4, 4)], arch=((8, 6), (8, 9)))
    signature = ComponentEntry((VALUE,), (replace(VALUE, name="y"),))
    build_engine(path, engine_file(path.parent, RTX.name), key, signature)
    return path.parent


def test_an_engine_that_fits_may_run(folder: Path) -> None:
    assert usable_key(RTX, folder, "fp16", (8, 9), "NVIDIA L4") == load_key(engine_file(folder, RTX.name))


def edit(name: str, before: bytes, after: bytes) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        path = folder / name
        assert before in path.read_bytes()
        path.write_bytes(path.read_bytes().replace(before, after))

    return change


KEY = "model.tensorrt-rtx.json"


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda folder: (folder / "model.tensorrt-rtx.engine").unlink(), "was not compiled for TensorRT-RTX"),
        (lambda folder: (folder / KEY).unlink(), "has no key beside it"),
        (edit("model.onnx", b"Relu", b"Tanh"), "it was compiled from the graph"),
        (edit(KEY, trt.__version__.encode(), b"1.0"), f"compiled by version 1.0, wanted is {trt.__version__}"),
        (edit(KEY, b'"fp16"', b'"fp32"'), "it was computing in fp32, wanted is fp16"),
        (edit(KEY, b'"STRICT_NANS",', b""), "compiled with -TF32 REQUIRE_USER_ALLOCATION, wanted is STRICT_NANS -TF32"),
        (edit(KEY, b'"8.9"', b'"12.0"'), r"compiled for compute capability 8.6, 12.0; here is NVIDIA L4 .*8.9\)"),
        (edit("model.tensorrt-rtx.engine", b"\0", b"\1"), "its bytes were changed"),
    ],
)
def test_an_engine_that_does_not_fit_is_refused_before_the_library_sees_it(
    folder: Path, harm: Callable[[Path], object], said: str
) -> None:
    harm(folder)
    with pytest.raises(DiffcleanError, match=said):
        usable_key(RTX, folder, "fp16", (8, 9), "NVIDIA L4")


def test_a_gpu_that_the_library_does_not_support(folder: Path) -> None:
    with pytest.raises(DiffcleanError, match=r"TensorRT-RTX does not support NVIDIA H100 \(compute capability 9.0\)"):
        usable_key(RTX, folder, "fp16", (9, 0), "NVIDIA H100")


def usable(name: str) -> Flavour:
    """The library, if it works on this machine's GPU; else the test is skipped."""
    flavour = FLAVOURS[name]
    module: ModuleType = pytest.importorskip(flavour.module)
    if not hasattr(module, "Builder") or not flavour.supported(gpus()[0].capability):
        pytest.skip(f"{flavour.title} does not work on this GPU")
    return flavour


@pytest.fixture(params=sorted(FLAVOURS))
def here(request: pytest.FixtureRequest, tiny_engine: Path, tmp_path: Path) -> tuple[str, Path, EngineManifest]:
    """An engine directory compiled for this machine's GPU, for batches of 4 and of 1 to 8."""
    flavour = usable(request.param)
    directory = Path(shutil.copytree(tiny_engine, tmp_path / "engine"))
    manifest = read_engine_manifest(directory)
    for name, signature in manifest.components.items():
        folder = directory / name
        key = engine_key(folder / "model.onnx", flavour.name, "fp32", Profile(1, 4, 8).both())
        build_engine(folder / "model.onnx", engine_file(folder, flavour.name), key, signature)
    return flavour.name, directory, manifest


Here = tuple[str, Path, EngineManifest]


@pytest.mark.gpu
@needs_gpu
def test_parity_with_torch(here: Here, tiny_model: Path) -> None:
    """Components take turns on the shared scratch memory, at batch sizes of both profiles, and again when replayed."""
    name, directory, manifest = here
    runtime = TensorRt(directory, manifest, name, "fp32")
    model = family_named(manifest.family).load(tiny_model)
    for seed, batch in enumerate([4, 1, 8, 4, 3, 4]):
        for place, component in model.components.items():
            inputs = example_inputs(component.inputs, batch, seed)
            with torch.no_grad():
                expected = component.module(*inputs.values())
            found = runtime.run(place, {name: tensor.cuda() for name, tensor in inputs.items()})
            for want, have in zip(expected if isinstance(expected, tuple) else (expected,), found, strict=True):
                assert (have.dtype, have.shape) == (want.dtype, want.shape)
                error = (have.cpu().double() - want.double()).abs().max()
                assert error <= (1 if want.dtype == torch.uint8 else 1e-3 * want.double().abs().max())


@pytest.mark.gpu
@needs_gpu
def test_what_is_not_finite_is_told(here: Here) -> None:
    name, directory, manifest = here
    sample = torch.zeros(4, 3, 16, 16, device="cuda")
    sample[1, 0, 0, 0], sample[2, 2, 9, 9] = float("nan"), float("-inf")
    _, finite = TensorRt(directory, manifest, name, "fp32").run("vae_decoder", {"sample": sample})
    assert finite.tolist() == [True, False, False, True]


@pytest.mark.gpu
@needs_gpu
def test_the_loop_does_not_wait_for_the_gpu(here: Here) -> None:
    """And what a call gave is not changed by the next one."""
    name, directory, manifest = here
    runtime = TensorRt(directory, manifest, name, "fp32")
    ports = manifest.components["unet"].inputs
    first, second = ({n: t.cuda() for n, t in example_inputs(ports, 4, seed).items()} for seed in (0, 1))
    runtime.run("unet", first)
    torch.cuda.set_sync_debug_mode("error")
    try:
        (one,) = runtime.run("unet", first)
        (two,) = runtime.run("unet", second)
        (again,) = runtime.run("unet", first)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(one, again)
    assert not torch.equal(one, two)


@pytest.mark.gpu
@needs_gpu
def test_what_does_not_fit_is_refused_on_a_gpu_too(here: Here) -> None:
    name, directory, manifest = here
    with pytest.raises(DiffcleanError, match="it was computing in fp32, wanted is fp16"):
        TensorRt(directory, manifest, name, "fp16")
    with pytest.raises(DiffcleanError, match=r"takes batches of 4, 1:4:8, not of 9"):
        TensorRt(directory, manifest, name, "fp32").run(
            "vae_decoder", {"sample": torch.zeros(9, 3, 16, 16, device="cuda")}
        )
    wrong = replace(manifest, components={"vae_decoder": manifest.components["unet"]})
    with pytest.raises((DiffcleanError, RuntimeError)):
        TensorRt(directory, wrong, name, "fp32")


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("name", sorted(FLAVOURS))
@pytest.mark.parametrize("weights", ["int8", "fp8"])
def test_weights_in_eight_bits_give_what_a_cpu_gives(name: str, weights: str, tmp_path: Path) -> None:
    flavour, least = usable(name), least_arch(weights)
    if least and gpus()[0].capability < least:
        pytest.skip(f"this GPU does not read {weights}")
    folder = tmp_path / "unet"
    denoiser(tmp_path / "plain.onnx", "fp16")
    model = onnx_ir.load(tmp_path / "plain.onnx")
    store_in_eight_bits(model, weights, "unet")
    folder.mkdir()
    onnx_ir.save(model, folder / "model.onnx")
    key = engine_key(folder / "model.onnx", flavour.name, "fp16", Profile(1, 4, 8).both(), least=least)
    build_engine(folder / "model.onnx", engine_file(folder, flavour.name), key, SIGNATURE)
    options = {"precision": "fp16", "weights": weights}
    manifest = EngineManifest("micro", {}, 8, {}, {"unet": SIGNATURE}, {}, {}, options)
    inputs = example_inputs(SIGNATURE.inputs, 4)
    (want,) = OnnxRuntime(tmp_path, manifest, "fp16", 1).run("unet", inputs)
    (have,) = TensorRt(tmp_path, manifest, name, "fp16").run("unet", {key: each.cuda() for key, each in inputs.items()})
    assert (have.cpu() - want).abs().max() <= 1e-2 * want.abs().max()
