"""OpenVINO on the CPU: bf16 where the processor has it, fp32 elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffclean.errors import DiffcleanError, MissingExtraError
from diffclean.export.manifest import EngineManifest

if TYPE_CHECKING:
    from torch import Tensor

_HINTS = {"fp32": "f32", "bf16": "bf16"}


def best_precision() -> str:
    """The precision that the CPU computes fastest in."""
    import openvino

    capabilities = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return "bf16" if "BF16" in capabilities else "fp32"


class OpenVino:
    """One compiled model and one inference request a component."""

    name = "openvino"
    device = "cpu"

    def __init__(
        self, directory: Path, manifest: EngineManifest, threads: int | None = None, precision: str | None = None
    ) -> None:
        try:
            import openvino
        except ImportError:
            raise MissingExtraError("openvino", "cpu") from None
        self.precision = precision or best_precision()
        if self.precision == "bf16" and best_precision() != "bf16":
            raise DiffcleanError("This CPU does not compute in bf16.", "Use --precision fp32.")
        core = openvino.Core()
        config: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": _HINTS[self.precision],
        }
        if threads:
            config["INFERENCE_NUM_THREADS"] = threads
        self._requests = {}
        for name in manifest.components:
            compiled = core.compile_model(directory / name / "model.onnx", "CPU", config)
            used = str(compiled.get_property("EXECUTION_DEVICES"))
            if "CPU" not in used:
                raise DiffcleanError(f"{name} runs on {used}, not on the CPU.")
            self._requests[name] = compiled.create_infer_request()

    def run(self, component: str, inputs: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """See `Runtime`."""
        import torch

        arrays = {name: tensor.numpy() for name, tensor in inputs.items()}
        request = self._requests[component]
        results = request.infer(arrays, share_inputs=True, share_outputs=False)
        return tuple(torch.from_numpy(results[output]) for output in results)
