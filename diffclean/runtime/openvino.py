"""OpenVINO on the CPU: bf16 if the processor has it, else fp32."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffclean.engine.manifest import GRAPH_NAME, EngineManifest
from diffclean.engine.openvino import FILES, form_problem, import_openvino, openvino_core
from diffclean.environment import usable_cores
from diffclean.errors import DiffcleanError, MissingExtraError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)

_HINTS = {"fp32": "f32", "bf16": "bf16"}


def best_precision() -> str:
    """The precision in which the CPU computes fastest."""
    capabilities = openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return "bf16" if "BF16" in capabilities else "fp32"


class OpenVino:
    """One compiled OpenVINO model with an inference request for each component.

    Args:
        directory: the engine directory.
        manifest: its manifest.
        precision: fp32 or bf16, whatever the precision of the graphs; None stands for the CPU's best.
        threads: the number of threads; None stands for all cores.

    Raises:
        MissingExtraError: OpenVINO is not installed.
        UsageError: OpenVINO does not have that precision.
        DiffcleanError: the CPU does not compute in it.
    """

    name = "openvino"
    device = "cpu"

    def __init__(
        self, directory: Path, manifest: EngineManifest, precision: str | None = None, threads: int | None = None
    ) -> None:
        try:
            import_openvino()
        except ImportError:
            raise MissingExtraError("openvino", "cpu") from None
        self.precision = precision or best_precision()
        if self.precision not in _HINTS:
            raise UsageError(f"The runtime openvino computes in {' or '.join(_HINTS)}, not in {precision}.")
        if self.precision == "bf16" and best_precision() != "bf16":
            raise DiffcleanError("This CPU does not compute in bf16.", "Use `precision` fp32.")
        cores = threads or max(1, int(usable_cores()))
        core = openvino_core()
        config: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": cores,
            "INFERENCE_PRECISION_HINT": _HINTS[self.precision],
        }
        if manifest.weights:  # otherwise it rounds the inputs of layers with such weights to eight bits as well
            config["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = "0"
        self._requests = {}
        for name in manifest.components:
            path = graph_of(directory, manifest, name)
            try:
                compiled = core.compile_model(path, "CPU", config)
            except Exception as error:  # its errors have no common type
                reason = (str(error).splitlines() or [type(error).__name__])[0]
                raise DiffcleanError(
                    f"{path} cannot be run by OpenVINO: {reason}", "Export the model again."
                ) from error
            used = str(compiled.get_property("EXECUTION_DEVICES"))
            if "CPU" not in used:
                raise DiffcleanError(f"{name} runs on {used}, not on the CPU.")
            self._requests[name] = compiled.create_infer_request()

    def run(self, component: str, inputs: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """See `Runtime`."""
        import torch

        arrays = {name: tensor.numpy() for name, tensor in inputs.items()}
        # Outputs are copied because the sampler keeps the predictions of several steps, and the next call would change
        # them.
        results = self._requests[component].infer(arrays, share_inputs=True, share_outputs=False)
        return tuple(torch.from_numpy(results[output]) for output in results)


def graph_of(directory: Path, manifest: EngineManifest, component: str) -> Path:
    """The file to read: the compiled form if there is one that fits, else the ONNX graph; the reason is logged."""
    problem = form_problem(directory, manifest, component)
    if problem is None:
        return directory / component / FILES[0]
    if problem:
        log.warning(
            "The ONNX graph of %s is used in place of its openvino form: %s. `diffclean export` makes the form again.",
            component,
            problem,
        )
    return directory / component / GRAPH_NAME
