"""What an image-variation model is, to everything that runs one.

A family turns a model directory into *components* (torch modules with named inputs and outputs, which export compiles)
and says how the compiled components are put together: how the source is looked at, what the denoiser is told, how its
result becomes pixels. It never runs a module itself: it is handed a `Call`, which any runtime provides.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    Call = Callable[[str, Mapping[str, Tensor]], tuple[Tensor, ...]]
    """Run a component by name on named inputs, all with the same batch axis first; outputs in declared order."""


@dataclass(frozen=True)
class Port:
    """One input or output of a component.

    Attributes:
        name: as in the ONNX graph.
        dtype: "float32", "uint8" or "bool".
        shape: without the batch axis, which always comes first and is dynamic.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Component:
    """A torch module with its signature.

    Attributes:
        module: in fp32.
        inputs: what it takes.
        outputs: what it gives.
        upcast: its configuration warns that half precision may be too little for it (`force_upcast`).
    """

    module: torch.nn.Module
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    upcast: bool = False


@dataclass(frozen=True)
class Model:
    """A loaded variation model.

    Attributes:
        family: name of its family.
        components: by place: image_encoder, unet, vae_decoder, vae_encoder.
        scheduler: configuration of its noise schedule, as diffusers stores it.
        image_size: side of the square that it regenerates, in pixels.
    """

    family: str
    components: Mapping[str, Component]
    scheduler: Mapping[str, Any] = field(default_factory=dict)
    image_size: int = 64


@dataclass(frozen=True)
class Look:
    """How the sources are looked at: what a `--strength` means to a family.

    Attributes:
        start: share of the noise schedule that is run; 1 begins at pure noise, less begins at the noised source.
        level: how much of the source the condition withholds, in the family's own unit.
        factor: by how much the condition averages the source, in pixels of the model's square; None: the model has no
            such thing.
        own: (B, 2) float on the CPU, how many pixels of its own each source of the batch has across the square, down
            and across; None: as many as the square. A small source that was enlarged has fewer.
    """

    start: float
    level: float
    factor: float | None = None
    own: Tensor | None = None


class Signature(Protocol):
    """What a component takes and gives back."""

    @property
    def inputs(self) -> tuple[Port, ...]:
        """In order."""

    @property
    def outputs(self) -> tuple[Port, ...]:
        """In order."""


def noise_shapes(components: Mapping[str, Signature]) -> dict[str, tuple[int, ...]]:
    """Standard normal tensors that one image needs, by name; shapes without the batch axis.

    `sample` is what the denoiser begins with; every component with an input called `noise` has one under its own name.
    """
    shapes = {
        "sample" if (place, port.name) == ("unet", "sample") else place: port.shape
        for place in sorted(components)
        for port in components[place].inputs
        if port.name == "noise" or (place, port.name) == ("unet", "sample")
    }
    return {"sample": shapes.pop("sample"), **shapes} if "sample" in shapes else shapes


class Family(Protocol):
    """One file a family. All tensors have the batch axis first."""

    name: str
    license_note: str
    pipelines: tuple[str, ...]
    """What `model_index.json` calls the models of this family (its `_class_name`)."""
    parts: tuple[str, ...]
    """The files and folders of a model directory that are read, as glob patterns; a hub is asked for nothing else."""

    def load(self, directory: Path, image_size: int | None = None) -> Model:
        """Read a model directory in diffusers' layout.

        Args:
            directory: with its `model_index.json`.
            image_size: side of the square to regenerate, in pixels; None: the model's own.

        Raises:
            DiffcleanError: a component is missing, belongs to another family, or would have to be unpickled.
        """

    def look(self, strength: float, inputs: Collection[str] = ()) -> Look:
        """Map a strength in (0, 1] to this family's look; monotone, 1 is the weakest look from pure noise.

        Args:
            strength: as it was asked for.
            inputs: the names of the inputs that the model's denoiser has: models of a family may differ in it.

        Raises:
            UsageError: nothing of the source would be left.
        """

    def condition(self, call: Call, pixels: Tensor, noise: Mapping[str, Tensor], look: Look) -> dict[str, Tensor]:
        """What the denoiser is told about the source: pixels (B, S, S, 3) uint8 -> named inputs, perhaps none.

        `noise` is named by the component that it is for, see `noise_shapes`.
        """

    def withhold(self, condition: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The same inputs with the source withheld: the unconditional half of guidance.

        Where there are none there is no guidance, and the sampler says so.
        """

    def encode(self, call: Call, pixels: Tensor, noise: Mapping[str, Tensor]) -> Tensor:
        """(B, S, S, 3) uint8 -> the space that is noised, for looks that begin at the noised source.

        `noise` as for `condition`.
        """

    def decode(self, call: Call, sample: Tensor) -> tuple[Tensor, Tensor]:
        """The denoised sample -> ((B, S, S, 3) uint8 pixels, (B,) bool: all of it was finite)."""
