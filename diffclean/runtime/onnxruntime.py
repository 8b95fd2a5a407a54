"""ONNX Runtime on the CPU or on an NVIDIA GPU. Tensors are bound by address, and nothing is copied."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffclean.engine.manifest import GRAPH_NAME, EngineManifest
from diffclean.environment import usable_cores, why_no_gpu
from diffclean.errors import DiffcleanError, MissingExtraError
from diffclean.runtime.base import as_exported
from diffclean.runtime.probe import BOTH_WHEELS, ONE_WHEEL, both_wheels

if TYPE_CHECKING:
    from torch import Tensor

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
# The operators that do the work of a model. Operators on shapes may run elsewhere: they belong on the CPU.
_HEAVY = {"Conv", "ConvTranspose", "MatMul", "Gemm", "FusedMatMul", "FusedConv", "Attention", "MultiHeadAttention"}


class OnnxRuntime:
    """One ONNX Runtime session for each component.

    Args:
        directory: the engine directory.
        manifest: its manifest.
        precision: the precision of the graphs, or None.
        threads: the number of CPU threads; None stands for all cores.
        device: "cpu" or "cuda".

    Raises:
        MissingExtraError: ONNX Runtime is not installed.
        UsageError: the graphs have another precision.
        DiffcleanError: it does not run on that device.
    """

    def __init__(
        self,
        directory: Path,
        manifest: EngineManifest,
        precision: str | None = None,
        threads: int | None = None,
        device: str = "cpu",
    ) -> None:
        self.device = device
        self.name = "onnxruntime" if device == "cpu" else "onnxruntime-cuda"
        self.precision = as_exported(self.name, manifest, precision)
        if device == "cpu" and self.precision == "bf16":
            raise DiffcleanError("ONNX Runtime on a CPU has no bf16.", "Use `runtime` openvino, or export in fp32.")
        self._outputs = {name: entry.outputs for name, entry in manifest.components.items()}
        self._gpu = _Gpu(self.name) if device == "cuda" else None
        self._index = self._gpu.index if self._gpu else 0
        library = _library(self.name)
        options = library.SessionOptions()
        options.intra_op_num_threads = threads or max(1, int(usable_cores()))
        options.log_severity_level = 3
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        # Otherwise it rounds the inputs of layers whose weights are in eight bits to eight bits as well.
        options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
        provider = (PROVIDERS[device], self._gpu.provider_options() if self._gpu else {})
        self._sessions = {name: _session(library, directory / name / GRAPH_NAME, options, provider)
                          for name in manifest.components}  # fmt: skip
        for name, session in self._sessions.items():
            session.disable_fallback()
            assert_provider(name, session, PROVIDERS[device])
        self._options = library.RunOptions()
        if self._gpu:
            # The order of the stream is enough; without this the CPU would wait for the GPU after every call.
            self._options.add_run_config_entry("disable_synchronize_execution_providers", "1")

    def run(self, component: str, inputs: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """See `Runtime`."""
        import numpy as np
        import torch

        session = self._sessions[component]
        binding = session.io_binding()
        # These are kept alive until the run is over, because the binding has only their addresses.
        taken = {name: tensor.contiguous() for name, tensor in inputs.items()}
        batch = len(next(iter(taken.values())))
        given = {
            port.name: torch.empty((batch, *port.shape), dtype=getattr(torch, port.dtype), device=self.device)
            for port in self._outputs[component]
        }
        for bind, tensors in ((binding.bind_input, taken), (binding.bind_output, given)):
            for name, tensor in tensors.items():
                if tensor.device.type != self.device:  # its address would be used as one of this device's memory
                    raise ValueError(f"{name} is on {tensor.device}, expected {self.device}")
                kind = np.dtype(str(tensor.dtype).removeprefix("torch.")).type
                bind(name, self.device, self._index, kind, tuple(tensor.shape), tensor.data_ptr())
        with self._gpu.in_order() if self._gpu else nullcontext():
            session.run_with_iobinding(binding, self._options)
        return tuple(given.values())


class _Gpu:
    """A CUDA stream for the sessions, which is ordered with torch's own, and the libraries that the provider needs."""

    def __init__(self, name: str) -> None:
        import torch

        if not torch.cuda.is_available():
            raise DiffcleanError(f"{name} needs an NVIDIA GPU: {why_no_gpu() or 'torch reaches none'}.")
        self.index = torch.cuda.current_device()
        self._stream = torch.cuda.Stream()

    def provider_options(self) -> dict[str, str]:
        """The options of the CUDA provider."""
        return {
            "device_id": str(self.index),
            "user_compute_stream": str(self._stream.cuda_stream),
            "arena_extend_strategy": "kSameAsRequested",  # it shares the GPU with torch
            "use_tf32": "0",  # fp32 means fp32
        }

    @contextmanager
    def in_order(self) -> Iterator[None]:
        """Order the work that is launched in the block after torch's earlier work and before its later work."""
        import torch

        caller = torch.cuda.current_stream()
        self._stream.wait_stream(caller)
        yield
        caller.wait_stream(self._stream)


def _session(library: Any, path: Path, options: Any, provider: tuple[str, dict[str, str]]) -> Any:
    """Open a graph.

    Raises:
        DiffcleanError: the graph is damaged, or this library cannot run it.
    """
    try:
        # With its own fallback, the library prints the error, with the names in the graph, on standard output.
        return library.InferenceSession(path, options, providers=[provider], enable_fallback=0)
    except Exception as error:  # its errors have no common type
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DiffcleanError(f"{path} cannot be run by ONNX Runtime: {reason}", "Export the model again.") from error


def _library(name: str) -> Any:
    """Import ONNX Runtime.

    Raises:
        MissingExtraError: it is not installed.
        DiffcleanError: both of its wheels are installed.
    """
    on_gpu = name == "onnxruntime-cuda"
    if on_gpu and both_wheels():
        raise DiffcleanError(BOTH_WHEELS, ONE_WHEEL + "onnxruntime-gpu")
    try:
        import onnxruntime
    except ImportError:
        raise MissingExtraError("onnxruntime-gpu" if on_gpu else "onnxruntime", "gpu" if on_gpu else "cpu") from None
    if on_gpu:
        onnxruntime.preload_dlls()  # CUDA's libraries, which torch's wheels brought along
    return onnxruntime


def assert_provider(component: str, session: Any, provider: str) -> None:
    """Refuse a session that does not compute on the intended provider, since ONNX Runtime falls back without an error.

    Raises:
        DiffcleanError: another provider runs the session, or some of the work.
    """
    used = session.get_providers()[0]
    if used != provider:
        raise DiffcleanError(f"{component} runs on {used}, not on {provider}.", "See `diffclean doctor`.")
    elsewhere = {
        f"{node.op_type} on {part.ep_name}"
        for part in session.get_provider_graph_assignment_info()
        for node in part.get_nodes()
        if part.ep_name != provider and node.op_type in _HEAVY
    }
    if elsewhere:
        raise DiffcleanError(
            f"{component} does not run on {provider} alone: {', '.join(sorted(elsewhere))}.",
            "The CUDA provider has no kernels for that precision. Export the model in fp16 or fp32.",
        )
