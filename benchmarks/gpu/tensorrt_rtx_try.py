"""Try whether an engine of TensorRT-RTX runs on this GPU, and record its answer word for word.

    python benchmarks/gpu/tensorrt_rtx_try.py --work WORK                      # the embedded model
    python benchmarks/gpu/tensorrt_rtx_try.py --work WORK --engine DIRECTORY   # and an engine's U-Net, full-size say

Each try is a process of its own, because a library that does not know a GPU may end the process. A try compiles a
component both for the library's default targets and for exactly this GPU. It then runs the component with diffclean's
own runtime, which refuses GPUs that the library's documentation does not list, and afterwards with the library itself,
which bypasses that refusal. Without a GPU, the builds are recorded, and the fact that there is no device.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from gpu_harness import add_arguments, measured

from diffclean.environment import gpus, why_no_gpu

LIBRARY = "tensorrt-rtx"
BATCH = 2
LIMIT_S = 400


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser, "tensorrt_rtx")
    parser.add_argument("--model", default="micro", help="a recipe or a model directory, exported here in fp16")
    parser.add_argument("--engine", type=Path, help="an engine directory with fp16 graphs, beside the embedded model")
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    parser.add_argument("--place", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        print(json.dumps(STEPS[options.step](options.place)))
        return 0
    cards = [f"{card.name}, compute capability {card.capability_text}" for card in gpus()] or why_no_gpu()
    settings = {"gpu": cards, "library": library_facts()}
    places = {options.model: options.work / "engine"}
    exported(options.model, options.work / "engine")
    if options.engine:
        places[options.engine.name] = options.engine
    plan = {
        f"{name}: {step}": partial(tried, step, place, options.work) for name, place in places.items() for step in STEPS
    }
    return measured(options, settings, plan, by_network, "no images")


def by_network(made: dict[str, Any]) -> dict[str, Any]:
    """Network -> step -> answer."""
    tries: dict[str, Any] = {}
    for name, answer in made.items():
        network, _, step = name.rpartition(": ")
        tries.setdefault(network, {})[step] = answer
    return {"tries": tries}


def exported(model: str, place: Path) -> None:
    """An engine's graphs in fp16."""
    from diffclean.export.export import Request, export

    export(Request(model, place, precision="fp16"))


def library_facts() -> dict[str, Any]:
    """Version, and the GPUs that it has a name for."""
    from diffclean.engine.tensorrt_library import FLAVOURS
    from diffclean.errors import MissingExtraError

    try:
        trt = FLAVOURS[LIBRARY].load()
    except MissingExtraError as error:
        return {"missing": error.message}
    return {"version": trt.__version__, "compute_capabilities": sorted(trt.ComputeCapability.__members__)}


def tried(step: str, place: Path, work: Path) -> dict[str, Any]:
    """A step in a process of its own: its answer, or how it ended."""
    command = [sys.executable, __file__, "--step", step, "--place", str(place), "--work", str(work)]
    started = time.monotonic()
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        return {"ok": False, "said": [f"not done after {LIMIT_S} s"]}
    seconds = round(time.monotonic() - started, 1)
    if done.returncode == 0:
        return {**json.loads(done.stdout.splitlines()[-1]), "seconds": seconds}
    return {"ok": False, "exit_code": done.returncode, "said": done.stderr.splitlines()[-20:], "seconds": seconds}


def build(place: Path) -> dict[str, Any]:
    """Compile for what the library does by default."""
    from diffclean.engine.manifest import read_engine_manifest
    from diffclean.engine.tensorrt_key import engine_file
    from diffclean.engine.tensorrt_targets import Profile
    from diffclean.errors import DiffcleanError
    from diffclean.export.tensorrt import engine_key, ensure_engine

    unet = read_engine_manifest(place).components["unet"]
    graph, engine = place / "unet" / "model.onnx", engine_file(place / "unet", LIBRARY)
    try:
        ensure_engine(graph, engine, engine_key(graph, LIBRARY, "fp16", [Profile(BATCH, BATCH, BATCH)]), unet)
    except DiffcleanError as error:
        return {"ok": False, "said": error.message.splitlines()}
    return {"ok": True, "bytes": engine.stat().st_size}


def build_for_this_gpu(place: Path) -> dict[str, Any]:
    """Compile a small network for the very GPU that is here, as the library finds it (its target CURRENT)."""
    from diffclean.engine.tensorrt_library import FLAVOURS

    trt = FLAVOURS[LIBRARY].load()
    logger, said = listener(trt)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    entry = network.add_input("x", trt.float32, (1, 16))
    network.mark_output(network.add_activation(entry, trt.ActivationType.RELU).get_output(0))
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    accepted = config.set_compute_capability(trt.ComputeCapability.CURRENT, 0)
    plan = builder.build_serialized_network(network, config)
    return {"ok": plan is not None, "target_accepted": accepted is not False, "said": said}


def by_diffclean(place: Path) -> dict[str, Any]:
    """What the runtime of diffclean answers."""
    from diffclean.engine.manifest import read_engine_manifest
    from diffclean.errors import DiffcleanError
    from diffclean.export.opening import compiling
    from diffclean.runtime.choose import open_runtime

    try:
        open_runtime(LIBRARY, place, read_engine_manifest(place), "fp16", make_ready=compiling(BATCH))
    except DiffcleanError as error:
        return {"ok": False, "said": error.message.splitlines()}
    return {"ok": True, "said": []}


def by_the_library(place: Path) -> dict[str, Any]:
    """Load the engine and run it, whatever the documentation says; compared with torch's answer to the same."""
    import torch

    from diffclean.engine.manifest import read_engine_manifest
    from diffclean.engine.tensorrt_key import engine_file
    from diffclean.engine.tensorrt_library import FLAVOURS
    from diffclean.export.onnx import example_inputs

    trt = FLAVOURS[LIBRARY].load()
    logger, said = listener(trt)
    if not torch.cuda.is_available():
        said.append(f"torch reaches no CUDA device: {why_no_gpu()}")
    try:
        runtime = trt.Runtime(logger)
    except TypeError as error:  # the binding's way of saying that the library gave it nothing
        return {"ok": False, "stage": "start", "said": [*said, str(error).splitlines()[0]]}
    engine = runtime.deserialize_cuda_engine(engine_file(place / "unet", LIBRARY).read_bytes())
    if engine is None:
        return {"ok": False, "stage": "load", "said": said}
    context = engine.create_execution_context(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
    if context is None:
        return {"ok": False, "stage": "make a context", "said": said}
    unet = read_engine_manifest(place).components["unet"]
    tensors = {name: value.cuda() for name, value in example_inputs(unet.inputs, BATCH).items()}
    given = {port.name: torch.zeros((BATCH, *port.shape), device="cuda") for port in unet.outputs}
    scratch = torch.empty(max(engine.device_memory_size_v2, 1), dtype=torch.uint8, device="cuda")
    context.set_device_memory(scratch.data_ptr(), scratch.numel())
    for name, tensor in tensors.items():
        context.set_input_shape(name, tuple(tensor.shape))
    for name, tensor in (tensors | given).items():
        context.set_tensor_address(name, tensor.data_ptr())
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    ran = context.execute_async_v3(stream.cuda_stream)
    stream.synchronize()
    if not ran:
        return {"ok": False, "stage": "run", "said": said}
    (found,) = (tensor.cpu().double() for tensor in given.values())
    return {
        "ok": True,
        "stage": "ran",
        "said": said,
        **compared(place, {n: t.cpu() for n, t in tensors.items()}, found),
    }


def compared(place: Path, inputs: dict[str, Any], found: Any) -> dict[str, Any]:
    """The largest difference to torch in fp32, relative to the largest value."""
    from diffclean.engine.manifest import read_engine_manifest
    from diffclean.runtime.torch import Torch

    runtime = Torch(read_engine_manifest(place), "fp32")
    (want,) = runtime.run("unet", {name: tensor.to(runtime.device) for name, tensor in inputs.items()})
    want = want.cpu().double()
    return {"relative_difference_to_torch": float((found - want).abs().max() / want.abs().max())}


def listener(trt: Any) -> tuple[Any, list[str]]:
    """A logger of the library that keeps all but chatter, word for word."""
    said: list[str] = []

    class Listener(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity not in (trt.ILogger.VERBOSE, trt.ILogger.INFO):
                said.append(f"{severity.name}: {message.strip()}")

    return Listener(), said


STEPS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "build": build,
    "build for this GPU": build_for_this_gpu,
    "run by diffclean": by_diffclean,
    "run by the library": by_the_library,
}

if __name__ == "__main__":
    sys.exit(main())
