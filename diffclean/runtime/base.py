"""What a runtime does: run a component of an engine on tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from diffclean.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from diffclean.engine.manifest import EngineManifest


class Runtime(Protocol):
    """Holds an engine's compiled components.

    Attributes:
        name: as in `--runtime`.
        precision: "fp32", "fp16" or "bf16", what the components compute in.
        device: where inputs are expected and outputs are left.
    """

    name: str
    precision: str
    device: str

    def run(self, component: str, inputs: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Run `component`; all inputs have the same batch size. Outputs are in declared order, fp32, uint8 or bool."""


def as_exported(name: str, manifest: EngineManifest, precision: str | None) -> str:
    """The precision of a runtime that computes in what the engine's graphs are in, and in nothing else.

    Raises:
        UsageError: another one is asked for.
    """
    if precision not in (None, manifest.precision):
        raise UsageError(
            f"The graphs of this engine are in {manifest.precision}, and the runtime {name} computes in what they are "
            f"in: {manifest.precision} only, not {precision}.",
            f"Export the model again: diffclean export MODEL --precision {precision}; or use `runtime` openvino (fp32, "
            "bf16) or torch.",
        )
    return manifest.precision
