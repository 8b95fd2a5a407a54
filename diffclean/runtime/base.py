"""What a runtime does: run a component of an engine on tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor


class Runtime(Protocol):
    """Holds an engine's compiled components.

    Attributes:
        name: as in `--runtime`.
        precision: "fp32" or "bf16", what the components compute in.
        device: where inputs are expected and outputs are left.
    """

    name: str
    precision: str
    device: str

    def run(self, component: str, inputs: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Run `component`; all inputs have the same batch size. Outputs are in declared order, fp32, uint8 or bool."""
