"""The interface of a model family, and the dataclasses that describe a loaded model.

A family turns a model directory into *components* (torch modules with named inputs and outputs, which `export`
compiles) and says how the compiled components work together: how the source is encoded, what the denoiser is given, and
how its result becomes pixels. A family never runs a module itself. It receives a `Call`, which any runtime provides.
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
    """Runs a component by name on named inputs, all with the same batch axis first; returns its outputs in order."""


@dataclass(frozen=True)
class Port:
    """One input or output of a component.

    Attributes:
        name: the name in the ONNX graph.
        dtype: "float32", "uint8" or "bool".
        shape: the shape without the batch axis, which always comes first and is dynamic.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Component:
    """A torch module with its signature.

    Attributes:
        module: the module in fp32.
        inputs: its inputs, in order.
        outputs: its outputs, in order.
        upcast: whether its configuration warns that half precision may not be enough for it (`force_upcast`).
    """

    module: torch.nn.Module
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    upcast: bool = False


@dataclass(frozen=True)
class Model:
    """A loaded variation model.

    Attributes:
        family: the name of its family.
        components: the components by place: image_encoder, unet, vae_decoder, vae_encoder.
        scheduler: the configuration of its noise schedule, as diffusers stores it.
        image_size: the side of the square that it regenerates, in pixels.
    """

    family: str
    components: Mapping[str, Component]
    scheduler: Mapping[str, Any] = field(default_factory=dict)
    image_size: int = 64


@dataclass(frozen=True)
class Look:
    """How much of a source the model may see: what a `strength` means to a family.

    Attributes:
        start: the share of the noise schedule that is run. 1 begins at pure noise, less begins at the noised source.
        level: how much of the source the condition withholds, in the unit of the family.
        factor: the number of pixels of the model's square over which the condition averages the source; None if the
            model has no such averaging.
        own: (B, 2) float on the CPU, how many pixels of its own each source of the batch has across the square,
            vertically and horizontally. None stands for as many as the square has. A small source that was enlarged has
            fewer.
    """

    start: float
    level: float
    factor: float | None = None
    own: Tensor | None = None


class Signature(Protocol):
    """The inputs and outputs of a component."""

    @property
    def inputs(self) -> tuple[Port, ...]:
        """The inputs, in order."""

    @property
    def outputs(self) -> tuple[Port, ...]:
        """The outputs, in order."""


def noise_shapes(components: Mapping[str, Signature]) -> dict[str, tuple[int, ...]]:
    """The standard normal tensors that one image needs, by name, with their shapes without the batch axis.

    `sample` is what the denoiser begins with. Every component with an input called `noise` has one under the
    component's name.
    """
    shapes = {
        "sample" if (place, port.name) == ("unet", "sample") else place: port.shape
        for place in sorted(components)
        for port in components[place].inputs
        if port.name == "noise" or (place, port.name) == ("unet", "sample")
    }
    return {"sample": shapes.pop("sample"), **shapes} if "sample" in shapes else shapes


class Family(Protocol):
    """A model family; each is one file. All tensors have the batch axis first.

    A family with an image encoder has one more method, by which the quality gate compares pictures
    (`variation.likeness`); without it, pictures are compared without a network:

        def features(self, call: Call, pixels: Tensor, noise: Mapping[str, Tensor]) -> Tensor

    It turns (B, S, S, 3) uint8 pixels into (B, D) float features, whose cosine says how similar two pictures are.
    `noise` has the same form as for `condition`, and is all zeros.
    """

    name: str
    license_note: str
    pipelines: tuple[str, ...]
    """The pipeline classes that `model_index.json` names for models of this family (its `_class_name`)."""
    parts: tuple[str, ...]
    """Glob patterns of the files and folders in a model directory that are read; nothing else is fetched from a hub."""

    def load(self, directory: Path, image_size: int | None = None) -> Model:
        """Read a model directory in diffusers' layout.

        Args:
            directory: the directory with `model_index.json`.
            image_size: the side of the square to regenerate, in pixels; None stands for the model's own.

        Raises:
            DiffcleanError: a component is missing, belongs to another family, or could only be read by unpickling it.
        """

    def look(self, strength: float, inputs: Collection[str] = ()) -> Look:
        """Translate a strength into this family's `Look`.

        The greater the strength, the less the model sees of the source.

        Args:
            strength: the strength in (0, 1] as the user gave it; 1 starts from pure noise and shows the model the
                least.
            inputs: the names of the inputs of the model's denoiser, in which the models of a family may differ.

        Raises:
            UsageError: the model would see nothing of the source.
        """

    def condition(self, call: Call, pixels: Tensor, noise: Mapping[str, Tensor], look: Look) -> dict[str, Tensor]:
        """Compute the inputs by which the denoiser knows the source.

        Args:
            call: runs a component.
            pixels: (B, S, S, 3) uint8, the sources.
            noise: the noise by the name of the component that needs it, see `noise_shapes`.
            look: how much of the source the model may see.

        Returns:
            Tensors by the name of the denoiser's input; empty if the denoiser has no such inputs.
        """

    def withhold(self, condition: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The same inputs without the source, for the unconditional half of classifier-free guidance.

        If the result is empty, the model has no guidance, and the sampler logs that.
        """

    def encode(self, call: Call, pixels: Tensor, noise: Mapping[str, Tensor]) -> Tensor:
        """Encode (B, S, S, 3) uint8 pixels into the space in which noise is added.

        Only a `Look` that begins at the noised source needs this. `noise` has the same form as for `condition`.
        """

    def decode(self, call: Call, sample: Tensor) -> tuple[Tensor, Tensor]:
        """Decode the denoised sample into pixels.

        Returns:
            (B, S, S, 3) uint8 pixels, and (B,) bool, whether all values of an image were finite.
        """
