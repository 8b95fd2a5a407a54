"""ONNX Runtime on the CPU."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from diffclean.errors import DiffcleanError, MissingExtraError
from diffclean.export.manifest import EngineManifest

if TYPE_CHECKING:
    from torch import Tensor


class OnnxRuntime:
    """One session a component; fp32 (its CPU provider has no bf16)."""

    name = "onnxruntime"
    precision = "fp32"
    device = "cpu"

    def __init__(self, directory: Path, manifest: EngineManifest, threads: int | None = None) -> None:
        try:
            import onnxruntime
        except ImportError:
            raise MissingExtraError("onnxruntime", "cpu") from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        options.log_severity_level = 3
        provider = "CPUExecutionProvider"
        self._sessions = {
            name: onnxruntime.InferenceSession(directory / name / "model.onnx", options, providers=[provider])
            for name in manifest.components
        }
        for name, session in self._sessions.items():
            if session.get_providers()[0] != provider:
                raise DiffcleanError(f"{name} runs on {session.get_providers()[0]}, not on {provider}.")

    def run(self, component: str, inputs: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """See `Runtime`."""
        import torch

        arrays = {name: tensor.numpy() for name, tensor in inputs.items()}
        return tuple(torch.from_numpy(result) for result in self._sessions[component].run(None, arrays))
