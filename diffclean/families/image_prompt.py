"""IP-Adapter: an image as a prompt, by a second cross-attention beside that to the text.

Ye et al., "IP-Adapter", arXiv 2308.06721. An adapter is one file for a U-Net that stays as it is. It has a projection
from CLIP's image encoder to a few tokens, and, for every cross-attention, two matrices that make keys and values of
these tokens (eq. 4 and 5). There are two kinds of projection. The plain one makes four tokens of the one embedding. The
other, "plus", makes sixteen of the states of all patches by a small network that attends to them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diffclean.errors import DiffcleanError
from diffclean.families.base import Component, Port
from diffclean.families.bounds import check_finite
from diffclean.families.clip_image import ClipPixels
from diffclean.families.latent import latent_port, pixel_port, vae_components
from diffclean.families.parts import load_part, read_config
from diffclean.families.sdxl import Sdxl, SdxlUNet, chosen
from diffclean.families.weights import weights_in

PART = "ip_adapter"
"""The folder of the adapter beside the parts of the model that it was made for."""
_EXPECTED = (
    "An adapter is one file of safetensors, as in h94/IP-Adapter: ip-adapter_sd15.safetensors, for example. Copy it "
    f"into the folder {PART}/ of the model, and its image encoder into image_encoder/."
)


class PromptTokens(nn.Module):
    """From pixels to the tokens of the image prompt; takes the place `image_encoder`."""

    def __init__(self, encoder: Any, pixels: ClipPixels, projection: nn.Module, of_patches: bool) -> None:
        super().__init__()
        self.pixels = pixels
        self.encoder = encoder
        self.projection = projection
        self.of_patches = of_patches
        if of_patches:  # diffusers takes the states before the last layer, which is therefore not needed
            encoder.vision_model.encoder.layers = encoder.vision_model.encoder.layers[:-1]

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, S, S, 3) uint8 -> (B, N, D) float."""
        return self._tokens(self.pixels(pixels).to(self.encoder.dtype))

    def of_nothing(self) -> Tensor:
        """(1, N, D) float, the tokens of the unconditional half of guidance.

        As in diffusers, the plain projection is given an embedding of zeros. The other is given the states that the
        encoder makes of a picture of zeros, which is one of the average colour.
        """
        side, config = self.encoder.config.image_size, self.encoder.config
        with torch.no_grad():
            if self.of_patches:
                return self._tokens(torch.zeros(1, 3, side, side))
            nothing: Tensor = self.projection(torch.zeros(1, config.projection_dim))
            return nothing

    def _tokens(self, image: Tensor) -> Tensor:
        """(B, 3, T, T) float, normalised -> (B, N, D)."""
        if self.of_patches:
            known = self.encoder.vision_model(image).last_hidden_state
        else:
            known = self.encoder(image).image_embeds
        tokens: Tensor = self.projection(known)
        return tokens


class PromptedUNet(nn.Module):
    """A U-Net with an empty text and an image prompt; takes the place `unet`."""

    prompt: Tensor
    nothing: Tensor

    def __init__(self, unet: Any, prompt: Tensor, nothing: Tensor) -> None:
        super().__init__()
        self.unet = unet
        self.register_buffer("prompt", prompt)
        self.register_buffer("nothing", nothing)

    def forward(self, sample: Tensor, timestep: Tensor, tokens: Tensor, told: Tensor) -> Tensor:
        """Predict what the scheduler's prediction type asks for.

        Args:
            sample: (B, C, H, W) noised latent.
            timestep: (B,) float.
            tokens: (B, N, D) tokens of the source.
            told: (B,) float: 1 to condition on `tokens`, 0 to condition on the tokens of nothing.

        Returns:
            (B, C, H, W) float, the prediction.
        """
        image = torch.where(told[:, None, None] > 0.5, tokens, self.nothing)
        context = (self.prompt.expand(sample.shape[0], -1, -1), [image])
        predicted: Tensor = self.unet(sample, timestep, context, return_dict=False)[0]
        return predicted


class SdxlPromptedUNet(nn.Module):
    """A U-Net of SDXL with an empty text and an image prompt; takes the place `unet`."""

    nothing: Tensor

    def __init__(self, model: Sdxl, nothing: Tensor) -> None:
        super().__init__()
        self.inner = SdxlUNet(model)
        self.register_buffer("nothing", nothing)

    def forward(self, sample: Tensor, timestep: Tensor, tokens: Tensor, told: Tensor) -> Tensor:
        """See `PromptedUNet.forward`; where `told` is 0, the text is that of SDXL's unconditional half, too."""
        image = torch.where(told[:, None, None] > 0.5, tokens, self.nothing)
        context = (chosen(self.inner.prompt, told), [image])
        added = self.inner.added(told)
        predicted: Tensor = self.inner.unet(sample, timestep, context, added_cond_kwargs=added, return_dict=False)[0]
        return predicted


def adapted(directory: Path, unet: Any, image_size: int) -> PromptTokens:
    """Read the adapter and the image encoder of a model directory, and change `unet` so that it takes an image prompt.

    Args:
        directory: the model directory.
        unet: the U-Net that the adapter was made for; it is changed.
        image_size: the side of the square, in pixels.

    Returns:
        The module that makes the tokens.

    Raises:
        DiffcleanError: a part is missing or damaged, or the parts do not fit together.
    """
    from transformers import CLIPVisionModelWithProjection

    state = _read(directory)
    projection = state["image_proj"]
    _check_kind(directory, projection)
    _check_attention(directory, state["ip_adapter"], unet)
    encoder = load_part(CLIPVisionModelWithProjection, directory, "image_encoder")
    of_patches = "proj.weight" not in projection
    _check_encoder(directory, projection, encoder)
    try:
        # This is diffusers' own reading of the file, whose names differ from those of its modules.
        unet._load_ip_adapter_weights([state], low_cpu_mem_usage=False)
    except (KeyError, IndexError, RuntimeError, AttributeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DiffcleanError(f"The adapter in {directory / PART} cannot be read: {reason}", _EXPECTED) from error
    module = unet.encoder_hid_proj.image_projection_layers[0].float().eval().requires_grad_(False)
    unet.float().eval().requires_grad_(False)
    unet.encoder_hid_proj = None  # the tokens are made once for an image, by the image encoder's component
    unet.config.encoder_hid_dim_type = None
    pixels = ClipPixels(image_size, _processor(directory, encoder.config.image_size), encoder.config.image_size)
    return PromptTokens(encoder, pixels, module, of_patches)


def prompted(
    tokens: nn.Module, unet: nn.Module, nothing: Tensor, vae: Any, size: int, normalised: bool = False
) -> dict[str, Component]:
    """The components of a model with an image prompt; `nothing` has the shape of the tokens."""
    port = Port("tokens", "float32", tuple(nothing.shape[1:]))
    sample, predicted = (latent_port(name, vae, size) for name in ("sample", "predicted"))
    inputs = (sample, Port("timestep", "float32", ()), port, Port("told", "float32", ()))
    return {
        "image_encoder": Component(tokens, (pixel_port(size),), (port,)),
        "unet": Component(unet, inputs, (predicted,)),
        **vae_components(vae, size, normalised),
    }


def _read(directory: Path) -> dict[str, dict[str, Tensor]]:
    """The two tables of an adapter's file: `image_proj` and `ip_adapter`."""
    from safetensors.torch import load_file

    folder = directory / PART
    weights = weights_in(folder)
    if weights is None or weights.pickled or len(weights.files) != 1:
        raise DiffcleanError(f"There is no adapter in {folder}.", _EXPECTED)
    try:
        tensors = load_file(folder / weights.files[0])
    except Exception as error:  # the library has an error of its own
        raise DiffcleanError(f"{folder / weights.files[0]} is damaged: {error}.", _EXPECTED) from error
    check_finite(folder, tensors)
    state: dict[str, dict[str, Tensor]] = {"image_proj": {}, "ip_adapter": {}}
    for name, tensor in tensors.items():
        table, _, rest = name.partition(".")
        if table not in state:
            raise DiffcleanError(f"{folder / weights.files[0]} is not an IP-Adapter: it has {name[:80]}.", _EXPECTED)
        state[table][rest] = tensor.float()
    return state


def _check_kind(directory: Path, projection: dict[str, Tensor]) -> None:
    """Refuse adapters for anything else than CLIP's view of a picture, for example for recognised faces."""
    if "proj.weight" not in projection and "latents" not in projection:
        raise DiffcleanError(
            f"The adapter in {directory / PART} is neither a plain IP-Adapter nor IP-Adapter plus.",
            "Adapters for faces (FaceID, full face) need another encoder than CLIP's and do not make variations.",
        )


def _check_attention(directory: Path, attention: dict[str, Tensor], unet: Any) -> None:
    """Compare the matrices of an adapter with those that the cross-attentions of the U-Net would need."""
    places = [name for name in unet.attn_processors if "attn2" in name]
    needed = [tuple(unet.get_submodule(name.removesuffix(".processor")).to_k.weight.shape) for name in places]
    found = {name: tuple(tensor.shape) for name, tensor in attention.items()}
    wanted = {
        f"{2 * number + 1}.to_{kind}_ip.weight": shape for number, shape in enumerate(needed) for kind in ("k", "v")
    }
    if found != wanted:
        raise DiffcleanError(
            f"The adapter in {directory / PART} was made for another U-Net: it has {_described(found)}, and the U-Net "
            f"needs {_described(wanted)}.",
            "Take the adapter for this model: the files with sd15 in their names for Stable Diffusion 1.x, and those "
            "with sdxl for Stable Diffusion XL.",
        )


def _described(shapes: dict[str, tuple[int, ...]]) -> str:
    widths = sorted({str(shape[-1]) for shape in shapes.values() if shape})
    return f"{len(shapes)} matrices for tokens of width {' and '.join(widths) or 'unknown'}"


def _check_encoder(directory: Path, projection: dict[str, Tensor], encoder: Any) -> None:
    """Compare the width that the projection takes with that of the image encoder."""
    plain = "proj.weight" in projection
    matrix = projection.get("proj.weight" if plain else "proj_in.weight")
    width = matrix.shape[-1] if matrix is not None and matrix.ndim else None
    found = encoder.config.projection_dim if plain else encoder.config.hidden_size
    if width != found:
        raise DiffcleanError(
            f"The adapter in {directory / PART} takes {'an embedding' if plain else 'patches'} of width {width}, and "
            f"{directory / 'image_encoder'} makes {found}: they belong to different models.",
            "Most adapters take ViT-H (models/image_encoder in h94/IP-Adapter). ip-adapter_sdxl.safetensors takes "
            "ViT-bigG (sdxl_models/image_encoder).",
        )


def _processor(directory: Path, side: int) -> dict[str, Any]:
    """The configuration of the image processor; where a model has none, diffusers uses CLIP's for the encoder."""
    part = "feature_extractor"
    if (directory / part / "preprocessor_config.json").is_file():
        return read_config(directory, part, "preprocessor_config.json")
    return {"size": side, "crop_size": side}
