"""The Protocol of a runtime, which runs the components of an engine on tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from diffclean.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from diffclean.engine.manifest import EngineManifest


class Runtime(Protocol):
    """The open components of an engine.

    Attributes:
        name: the name that `--runtime` takes.
        precision: "fp32", "fp16" or "bf16", the precision that the components compute in.
        device: the device of inputs and outputs.
    """

    name: str
    precision: str
    device: str

    def run(self, component: str, inputs: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Run `component` on inputs with the same batch size. Outputs are in declared order, in fp32, uint8 or bool."""


def as_exported(name: str, manifest: EngineManifest, precision: str | None) -> str:
    """The precision of a runtime that computes only in the precision of the engine's graphs.

    Raises:
        UsageError: another precision is asked for.
    """
    if precision not in (None, manifest.precision):
        raise UsageError(
            f"The graphs of this engine are in {manifest.precision}, and the runtime {name} cannot compute in another "
            f"precision: {manifest.precision} only, not {precision}.",
            f"Export the model again: diffclean export MODEL --precision {precision}; or use `runtime` openvino (fp32, "
            "bf16) or torch.",
        )
    return manifest.precision
