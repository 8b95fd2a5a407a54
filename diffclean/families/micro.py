"""The embedded family `micro`: 64 px, in pixel space, conditioned on a degraded view of the source.

At every strength s in (0, 1], denoising begins at pure noise; a greater s makes the view show less. Information about
the suspect image reaches the sampler only through the view, so a trigger cannot pass if the view withholds it. There
are two versions of views (`view` in the configuration of the network). In version 1 the strength sets the noise of the
view, whose level is s. In version 2 it sets the noise and the coarseness of the view (`micro_view.coarse_look`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from diffclean.data.json_file import read_json
from diffclean.errors import DiffcleanError
from diffclean.families.base import Component, Look, Model, Port

if TYPE_CHECKING:
    from torch import Tensor

    from diffclean.families.base import Call
    from diffclean.families.micro_model import MicroUNet


def _unet(directory: Path) -> MicroUNet:
    """Read the denoiser and check that its weights are complete. diffusers would only warn and make weights up."""
    from diffclean.families.bounds import check_finite
    from diffclean.families.micro_model import MicroUNet
    from diffclean.families.parts import check_proportion
    from diffclean.families.weights import weights_in

    if (weights := weights_in(directory)) is not None:
        check_proportion(directory, read_json(directory / "config.json"), weights)
    try:
        unet, read = MicroUNet.from_pretrained(directory, use_safetensors=True, output_loading_info=True)
    except Exception as error:  # a dozen kinds, from the file's header to the shapes in it
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DiffcleanError(f"The weights in {directory} cannot be read: {reason}") from error
    wrong = [f"{name} is missing" for name in read["missing_keys"]]
    wrong += [f"{name} is unknown" for name in read["unexpected_keys"]]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise DiffcleanError(
            f"The weights in {directory} are not those of this network: {', '.join(wrong[:3])}{more}.",
            "They may come from another version of diffclean. `diffclean pretrain` makes new weights.",
        )
    check_finite(directory, unet.state_dict())
    loaded: MicroUNet = unet
    return loaded


class Micro:
    """The family `micro`, see the description of the module."""

    name = "micro"
    pipelines = ("MicroPipeline",)
    parts = ("unet/*", "scheduler/*")
    license_note = "weights trained on research-only data (Tiny ImageNet); for production, see `diffclean pretrain`"

    def load(self, directory: Path, image_size: int | None = None) -> Model:
        """Read `unet/` (a `MicroUNet`) and `scheduler/` of a model directory. The model has one size only."""
        from diffclean.families.micro_model import PixelDecoder
        from diffclean.families.micro_view import encoder_of
        from diffclean.families.parts import read_config
        from diffclean.families.schedulers import read_scheduler

        for part in ("unet/config.json", "unet/diffusion_pytorch_model.safetensors", "scheduler/scheduler_config.json"):
            if not (directory / part).is_file():
                raise DiffcleanError(
                    f"{directory} is not a model of the family micro: {part} is missing.",
                    "Point at the folder named model that `diffclean pretrain` writes.",
                )
        found = read_config(directory, "unet").get("_class_name")
        scheduler = read_scheduler(directory)
        if found != "MicroUNet":
            raise DiffcleanError(f"{directory}/unet holds a {found}; the family micro expects a MicroUNet.")
        unet = _unet(directory / "unet").float().eval()
        size: int = unet.config.sample_size
        if image_size not in (None, size):
            raise DiffcleanError(f"The model in {directory} regenerates squares of {size} px, not of {image_size}.")
        pixels = Port("pixels", "uint8", (size, size, 3))
        sample = Port("sample", "float32", (3, size, size))
        view = Port("view", "float32", (3, size // 2, size // 2))
        level = Port("view_level", "float32", ())
        noise = Port("noise", "float32", view.shape)
        coarse = unet.config.view == 2
        cells = tuple(Port(name, "float32", (size // 2, size)) for name in ("down", "across")) if coarse else ()
        cell = (Port("view_cell", "float32", ()),) if coarse else ()
        components = {
            "image_encoder": Component(encoder_of(unet).eval(), (pixels, noise, level, *cells), (view,)),
            "unet": Component(
                unet,
                (sample, Port("timestep", "float32", ()), view, level, *cell),
                (Port("clean", "float32", sample.shape),),
            ),
            "vae_decoder": Component(PixelDecoder().eval(), (sample,), (pixels, Port("finite", "bool", ()))),
        }
        return Model(self.name, components, scheduler, size)

    def look(self, strength: float, inputs: Collection[str] = ()) -> Look:
        """Always begin at pure noise.

        The noise level of the view is the strength, or follows the curve of coarse views.
        """
        if "view_cell" not in inputs:
            return Look(start=1.0, level=strength)
        from diffclean.families.micro_view import coarse_look

        factor, level = coarse_look(strength)
        return Look(start=1.0, level=level, factor=factor)

    def condition(self, call: Call, pixels: Tensor, noise: Mapping[str, Tensor], look: Look) -> dict[str, Tensor]:
        """The view and its noise level, and for a coarse view also the size of its cells."""
        import torch

        level = torch.full((len(pixels),), look.level, device=pixels.device)
        given = {"pixels": pixels, "noise": noise["image_encoder"], "view_level": level}
        if look.factor is None:
            (view,) = call("image_encoder", given)
            return {"view": view, "view_level": level}
        from diffclean.families.micro_view import cell_sides, told_cell, view_inputs

        size = pixels.shape[1]
        own = torch.full((len(pixels), 2), float(size)) if look.own is None else look.own
        cell = cell_sides(torch.full((len(pixels),), float(look.factor)), own, size)
        (view,) = call("image_encoder", {**given, **view_inputs(noise["image_encoder"], cell)})
        return {"view": view, "view_level": level, "view_cell": told_cell(cell).to(pixels.device)}

    def withhold(self, condition: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """An empty view, with the level that marks it as empty."""
        from diffclean.families.micro_model import NO_VIEW_LEVEL

        empty = {name: tensor.new_zeros(tensor.shape) for name, tensor in condition.items()}
        return {**empty, "view_level": empty["view_level"] + NO_VIEW_LEVEL}

    def encode(self, call: Call, pixels: Tensor, noise: Mapping[str, Tensor]) -> Tensor:
        """Scale the pixels to [-1, 1]; there is no latent space."""
        return pixels.permute(0, 3, 1, 2).float() / 127.5 - 1

    def decode(self, call: Call, sample: Tensor) -> tuple[Tensor, Tensor]:
        """The pixels and the `finite` flag, both from the decoder graph."""
        pixels, finite = call("vae_decoder", {"sample": sample})
        return pixels, finite
