"""What a runtime does: run a component of an engine on tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from diffclean.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from diffclean.export.manifest import EngineManifest


_SMALL_PX = 128
_MOST_LANES = 8
"""More batches in flight would only cost memory: each lane then has several cores."""


class Runtime(Protocol):
    """Holds an engine's compiled components.

    Attributes:
        name: as in `--runtime`.
        precision: "fp32", "fp16" or "bf16", what the components compute in.
        device: where inputs are expected and outputs are left.
        lanes: how many threads may call `run` at once. More than one where several batches side by side are quicker
            than one after the other.
    """

    name: str
    precision: str
    device: str
    lanes: int

    def run(self, component: str, inputs: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Run `component`; all inputs have the same batch size. Outputs are in declared order, fp32, uint8 or bool."""


def cpu_lanes(image_size: int, cores: int) -> int:
    """How many batches a CPU should work on side by side.

    A small network's operators are too short to share: its threads wait for one another after each, and wait long
    where one of them lost its core to a thread that decodes. A batch a core has no such barrier. Of larger images one
    batch has work enough for all cores, and two would take twice the memory.
    """
    return min(cores, _MOST_LANES) if image_size <= _SMALL_PX else 1


def as_exported(name: str, manifest: EngineManifest, precision: str | None) -> str:
    """The precision of a runtime that computes in what the engine's graphs are in, and in nothing else.

    Raises:
        UsageError: another one is asked for.
    """
    if precision not in (None, manifest.precision):
        raise UsageError(
            f"The graphs of this engine are in {manifest.precision}, and the runtime {name} computes in what they are "
            f"in: {manifest.precision} only, not {precision}.",
            f"Export the model again: diffclean export MODEL --precision {precision}; or use --runtime openvino (fp32, "
            "bf16) or torch.",
        )
    return manifest.precision
