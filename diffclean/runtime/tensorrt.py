"""TensorRT and TensorRT-RTX on an NVIDIA GPU, with a CUDA graph for every component and batch size.

Everything runs on one separate CUDA stream. All components share one block of scratch memory, which is as large as the
largest component needs. Events order this stream with that of the caller; after the first call at a batch size, the CPU
waits for nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffclean.data.atomic import WriteError, make_folders, write_whole
from diffclean.engine.manifest import EngineManifest
from diffclean.engine.tensorrt_key import EngineKey, engine_file, load_key, onnx_digest, why_not
from diffclean.engine.tensorrt_library import Flavour, Said, flavour_named, logger_for, port_mismatch
from diffclean.engine.tensorrt_targets import Arch, arch_text, closest_profile
from diffclean.environment import cache_dir, why_no_gpu
from diffclean.errors import DiffcleanError

if TYPE_CHECKING:
    from torch import Tensor

    from diffclean.families.base import Signature

log = logging.getLogger(__name__)

_REBUILD = "Compile the engine again: `diffclean export`."


class TensorRt:
    """Runs an engine directory whose components were compiled by `export.tensorrt`.

    Args:
        directory: the engine directory.
        manifest: its manifest.
        name: "tensorrt" or "tensorrt-rtx".
        precision: the precision that the engines must compute in.

    Raises:
        MissingExtraError: the library is not installed.
        DiffcleanError: there is no GPU that it supports, or an engine is missing, changed or made for something else.
    """

    device = "cuda"

    def __init__(self, directory: Path, manifest: EngineManifest, name: str, precision: str) -> None:
        import torch

        self.name, self.precision = name, precision
        library = flavour_named(name)
        trt = library.load()
        if not torch.cuda.is_available():
            raise DiffcleanError(f"{library.title} needs an NVIDIA GPU: {why_no_gpu() or 'torch reaches none'}.")
        logger, said = logger_for(trt)
        self._runtime = trt.Runtime(logger)  # must outlive its engines
        self._stream = torch.cuda.Stream()
        capability, gpu = torch.cuda.get_device_capability(), torch.cuda.get_device_name()
        self._parts = {}
        for component, signature in manifest.components.items():
            key = usable_key(library, directory / component, precision, capability, gpu)
            data = engine_file(directory / component, name).read_bytes()
            engine = self._runtime.deserialize_cuda_engine(data)
            if engine is None:
                raise DiffcleanError(f"{library.title} cannot load {component}:\n{said.text()}", _REBUILD)
            self._parts[component] = _Part(component, library, trt, engine, key, signature, said)
        size = max(part.engine.device_memory_size_v2 for part in self._parts.values())
        self._scratch = torch.empty(max(size, 1), dtype=torch.uint8, device=self.device)
        self._replays: dict[tuple[str, int], _Replay] = {}

    def run(self, component: str, inputs: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """See `Runtime`. The first call at a batch size records it; later ones replay."""
        batch = len(next(iter(inputs.values())))
        if (component, batch) not in self._replays:
            self._replays[component, batch] = _Replay(self._parts[component], batch, self._stream, self._scratch)
        return self._replays[component, batch](inputs)


def usable_key(library: Flavour, folder: Path, precision: str, capability: Arch, gpu: str) -> EngineKey:
    """The key of a component's engine, if it is the one that would be compiled from the graph beside it today.

    Args:
        library: the library that runs the engine.
        folder: the folder of the component.
        precision: the precision that it must compute in.
        capability: the compute capability of this machine's GPU.
        gpu: the name of the GPU.

    Raises:
        MissingExtraError: the library is not installed.
        DiffcleanError: the GPU or the engine cannot be used; the message says which and why.
    """
    here = f"{gpu} (compute capability {arch_text([capability])})"
    if not library.supported(capability):
        raise DiffcleanError(f"{library.title} does not support {here}.")
    engine = engine_file(folder, library.name)
    if not engine.is_file():
        raise DiffcleanError(f"{folder} was not compiled for {library.title}: {engine.name} is missing.", _REBUILD)
    key = load_key(engine)
    wanted = replace(
        key,
        flavour=library.name,
        library_version=library.load().__version__,
        onnx_sha256=onnx_digest(folder / "model.onnx"),
        precision=precision,
        gpu=gpu if library.needs_gpu else "",
        flags=tuple(dict.fromkeys((*library.flag_names(), *key.flags))),
    )
    if problem := why_not(engine, wanted):
        raise DiffcleanError(f"{engine} cannot be used: {problem}.", _REBUILD)
    if not key.runs_on(capability):
        targets = arch_text(key.arch)
        raise DiffcleanError(f"{engine} was compiled for compute capability {targets}; here is {here}.", _REBUILD)
    return key


class _Part:
    """One component: its engine, and what its execution contexts are made from."""

    def __init__(
        self, name: str, library: Flavour, trt: Any, engine: Any, key: EngineKey, signature: Signature, said: Said
    ) -> None:
        self.name, self.library, self.engine, self.signature, self.said = name, library, engine, signature, said
        self._trt = trt
        self._profiles = key.profiles
        for port in (*signature.inputs, *signature.outputs):
            if wrong := port_mismatch(port, engine.get_tensor_dtype(port.name), engine.get_tensor_shape(port.name)):
                raise DiffcleanError(f"The engine of {name} is not what was declared: {wrong}.", _REBUILD)
        self._config: Any = None
        if library.runtime_cache:
            self._config = engine.create_runtime_config()
            self._config.set_execution_context_allocation_strategy(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
            # Kernels are compiled at once. Otherwise the CUDA graph would record the slow ones that are used until
            # then.
            eager = trt.DynamicShapesKernelSpecializationStrategy.EAGER
            self._config.dynamic_shapes_kernel_specialization_strategy = eager
            self._cache = self._config.create_runtime_cache()
            # The name comes from the graph; the library itself refuses a cache of another GPU or driver.
            self._cache_path = cache_dir() / "tensorrt-rtx" / f"{key.onnx_sha256[:32]}.cache"
            if self._cache_path.is_file() and not self._cache.deserialize(self._cache_path.read_bytes()):
                log.info(
                    "The saved kernels of %s are for another GPU, driver or version; they are compiled again.", name
                )
            self.must(self._config.set_runtime_cache(self._cache), "take its runtime cache")

    def context(self) -> Any:
        """An execution context that has no memory yet."""
        strategy = self._trt.ExecutionContextAllocationStrategy.USER_MANAGED
        context = self.engine.create_execution_context(self._config if self.library.runtime_cache else strategy)
        self.must(context is not None, "make an execution context")
        return context

    def profile_for(self, batch: int) -> int:
        """The index of the profile to use for a batch size.

        Raises:
            DiffcleanError: no profile takes it.
        """
        index = closest_profile(self._profiles, batch)
        if index is None:
            sizes = ", ".join(map(str, self._profiles))
            raise DiffcleanError(f"The engine of {self.name} takes batches of {sizes}, not of {batch}.", _REBUILD)
        return index

    def keep_kernels(self) -> None:
        """Save the kernels that were compiled for this GPU, for the next run. If that fails, it costs only time."""
        if self.library.runtime_cache:
            try:
                make_folders(self._cache_path.parent)
                write_whole(self._cache_path, bytes(self._cache.serialize()))
            except WriteError as error:
                log.info("The kernels that were compiled for %s cannot be saved: %s", self.name, error.message)

    def must(self, worked: bool, what: str) -> None:
        """Raise an error with the library's report if a call failed."""
        if not worked:
            raise DiffcleanError(f"{self.library.title} could not {what} for {self.name}:\n{self.said.text()}")


class _Replay:
    """One component at one batch size: buffers at fixed addresses, and the CUDA graph that works on them."""

    def __init__(self, part: _Part, batch: int, stream: Any, scratch: Tensor) -> None:
        import torch

        def buffers(ports: Sequence[Any]) -> dict[str, Tensor]:
            return {
                port.name: torch.zeros((batch, *port.shape), dtype=getattr(torch, port.dtype), device=scratch.device)
                for port in ports
            }

        self._part, self._stream = part, stream
        self._inputs, self._outputs = buffers(part.signature.inputs), buffers(part.signature.outputs)
        # Each has its own context: a recorded graph points into the context's state, so its shapes may not change.
        self._context = context = part.context()
        stream.wait_stream(torch.cuda.current_stream())
        context.set_device_memory(scratch.data_ptr(), scratch.numel())
        index = part.profile_for(batch)
        part.must(context.set_optimization_profile_async(index, stream.cuda_stream), f"choose profile {index}")
        for name, tensor in self._inputs.items():
            part.must(context.set_input_shape(name, tuple(tensor.shape)), f"take {name} as {list(tensor.shape)}")
        for name, tensor in (self._inputs | self._outputs).items():
            part.must(context.set_tensor_address(name, tensor.data_ptr()), f"bind {name}")
        part.must(not context.infer_shapes(), "tell its shapes")
        # The first run is outside of the graph: it compiles kernels and lets the library choose them for these shapes.
        part.must(context.execute_async_v3(stream.cuda_stream), "run")
        stream.synchronize()
        part.keep_kernels()
        self._graph: Any = None
        if part.library.asks_capture and not context.is_stream_capturable(stream.cuda_stream):
            log.info("%s cannot be recorded as a CUDA graph; it is launched kernel by kernel.", part.name)
            return
        self._graph = torch.cuda.CUDAGraph()
        # The restrictions of recording apply to this thread only, so that others can go on decoding and writing images.
        with torch.cuda.graph(self._graph, stream=stream, capture_error_mode="thread_local"):
            part.must(context.execute_async_v3(stream.cuda_stream), "be recorded")

    def __call__(self, inputs: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Copy the inputs in, run, and copy the outputs out, so that the next call does not change the result."""
        import torch

        for name, buffer in self._inputs.items():
            if inputs[name].shape != buffer.shape:  # copy_ would broadcast
                raise ValueError(f"{name} is {list(inputs[name].shape)}, expected {list(buffer.shape)}")
            buffer.copy_(inputs[name], non_blocking=True)
        caller = torch.cuda.current_stream()
        self._stream.wait_stream(caller)
        with torch.cuda.stream(self._stream):
            if self._graph is not None:
                self._graph.replay()
            else:
                self._part.must(self._context.execute_async_v3(self._stream.cuda_stream), "run")
        caller.wait_stream(self._stream)
        return tuple(buffer.clone() for buffer in self._outputs.values())
