"""How the parts of a model directory are read: configurations and networks, checked before anything runs them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffclean.data.json_file import read_json
from diffclean.errors import DiffcleanError
from diffclean.families.bounds import check_finite, safetensors_header
from diffclean.families.weights import Weights, weights_in

LARGEST_NATIVE = 2048
"""Side in pixels of the largest square that a configuration may ask for; --size may ask for more."""
_LARGEST_NUMBER = 2**20
"""In a configuration: widths, vocabularies."""


def read_config(directory: Path, part: str, file: str = "config.json") -> dict[str, Any]:
    """The configuration of a part of a model directory.

    Raises:
        DiffcleanError: it is missing or damaged.
    """
    path = directory / part / file
    if not path.is_file():
        raise DiffcleanError(
            f"{directory} is not a whole model: {part}/{file} is missing.",
            "A model directory is what diffusers' `save_pretrained` writes, or a copy of all files of the hub's page.",
        )
    config = read_json(path)
    if not isinstance(config, dict):
        raise DiffcleanError(f"{path} is damaged: it holds a {type(config).__name__}.")
    return config


def load_part(cls: Any, directory: Path, part: str, **arguments: Any) -> Any:
    """Read one network of a model directory in fp32, from safetensors alone.

    Args:
        cls: its class in diffusers or transformers.
        directory: the model directory.
        part: its folder.
        arguments: for `from_pretrained`.

    Raises:
        DiffcleanError: it is missing, of another class, or its weights do not fit.
    """
    import diffusers
    import transformers

    for library in (diffusers, transformers):
        library.utils.logging.disable_progress_bar()
        library.utils.logging.set_verbosity_error()  # what it warns of is checked here, and not quoted raw
    found = read_config(directory, part)
    architectures = found.get("architectures")
    own = architectures[0] if isinstance(architectures, list) and architectures else cls.__name__
    name = found.get("_class_name") or own
    # A CLIP model with a projection may say that it is one without: the weights decide, below.
    if cls.__name__ not in (name, f"{name}WithProjection"):
        raise DiffcleanError(f"{directory / part} holds a {name}; a {cls.__name__} was expected.")
    weights = _weights(directory / part)
    check_proportion(directory / part, found, weights)
    if weights.variant is not None:
        arguments["variant"] = weights.variant
    try:
        module, read = cls.from_pretrained(
            directory / part, use_safetensors=True, local_files_only=True, output_loading_info=True, **arguments
        )
    except Exception as error:  # a dozen kinds, from a missing file to the shapes in it
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DiffcleanError(
            f"The weights in {directory / part} cannot be read: {reason}", "Were they copied whole? Copy them again."
        ) from error
    # Buffers like CLIP's position_ids were saved by older versions and are made anew.
    missing = [name for name in read["missing_keys"] if not name.endswith("position_ids")]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise DiffcleanError(
            f"The weights in {directory / part} are not those of a {cls.__name__}: "
            f"{', '.join(sorted(missing)[:3])}{more} missing."
        )
    module = module.float().eval().requires_grad_(False)
    check_finite(directory / part, module.state_dict())
    return module


def check_proportion(folder: Path, config: Mapping[str, Any], weights: Weights) -> None:
    """Refuse a configuration of a network that is out of all proportion to its weights, before it is built.

    Raises:
        DiffcleanError: names the key.
    """
    tensors = sum(len(safetensors_header(folder / name)) for name in weights.files if name.endswith(".safetensors"))
    for key, value in config.items():
        for number in value if isinstance(value, list) else [value]:
            if type(number) is int and abs(number) > _LARGEST_NUMBER:
                raise DiffcleanError(f"{folder}/config.json has {key} {str(number)[:40]}; no network is that large.")
        if "layers" in key or key == "blocks":
            numbers = [n for n in (value if isinstance(value, list) else [value]) if type(n) is int]
            if sum(numbers) > max(tensors, 8):
                raise DiffcleanError(
                    f"{folder}/config.json has {key} {str(value)[:40]}, and the weights have {tensors} tensors in all."
                )
        if isinstance(value, list) and len(value) > 64:
            raise DiffcleanError(f"{folder}/config.json has {len(value)} entries for {key}; no network has so many.")


def _weights(folder: Path) -> Weights:
    """The weights that are read."""
    weights = weights_in(folder)
    if weights is None:
        raise DiffcleanError(
            f"There are no weights in {folder}.", "Expected: safetensors, as `save_pretrained` writes."
        )
    if weights.pickled:
        raise DiffcleanError(
            f"{folder} has pickled weights alone ({weights.files[0]}), which are not read as they are.",
            "`diffclean export` turns them into safetensors first.",
        )
    return weights


def load_unet(directory: Path, part: str, context: int, class_embeds: str | None = None) -> Any:
    """Read a U-Net that is told a context by cross-attention, and nothing else that we would have to make up.

    Args:
        directory: the model directory.
        part: its folder.
        context: width of a token of what it will be told.
        class_embeds: its `class_embed_type`.

    Raises:
        DiffcleanError: as `load_part`, or it wants to be told something else.
    """
    from diffusers import UNet2DConditionModel

    unet = load_part(UNet2DConditionModel, directory, part)
    expected = {
        "in_channels": unet.config.out_channels,
        "cross_attention_dim": context,
        "class_embed_type": class_embeds,
        "num_class_embeds": None,
        "addition_embed_type": None,
        "time_cond_proj_dim": None,
        "encoder_hid_dim": None,
        "encoder_hid_dim_type": None,
    }
    found = {name: unet.config.get(name) for name in expected}
    wrong = [f"{name} {found[name]} (expected {value})" for name, value in expected.items() if found[name] != value]
    if wrong:
        raise DiffcleanError(
            f"The network in {directory / part} is another one than its pipeline says: {', '.join(wrong)}.",
            "Inpainting, distilled (LCM) and adapted checkpoints are not known to this family.",
        )
    return unet


def square_of(image_size: int | None, unet: Any, vae: Any) -> int:
    """The side in pixels of the square that a U-Net and a VAE regenerate together.

    Args:
        image_size: what is asked for; None: the U-Net's own.
        unet: of diffusers.
        vae: of diffusers.

    Raises:
        DiffcleanError: they do not belong together, name no size, or cannot work at that one.
    """
    latent = vae.config.latent_channels
    if unet.config.in_channels != latent:
        raise DiffcleanError(
            f"The U-Net works on {unet.config.in_channels} channels, and the VAE makes {latent}: they are of different "
            "models.",
            "Copy all parts of one model.",
        )
    colours = (vae.config.in_channels, vae.config.out_channels)
    if colours != (3, 3):
        raise DiffcleanError(f"The VAE takes {colours[0]} and gives {colours[1]} colours; expected 3 and 3.")
    factor = int(2 ** (len(vae.config.block_out_channels) - 1))
    found = unet.config.sample_size
    sides = list(found) if isinstance(found, list | tuple) else [found]
    if image_size is None:
        if sides == [None]:
            raise DiffcleanError("The model does not say for which size it is (sample_size).", "Name one: `size` 512")
        if len(set(map(str, sides))) != 1:
            raise DiffcleanError(f"The model is made for {sides}, which is no square.", "Name a square: `size` 512")
        if type(sides[0]) is not int or not 0 < sides[0] * factor <= LARGEST_NATIVE:
            raise DiffcleanError(
                f"The model's sample_size is {sides[0]}; expected a number up to {LARGEST_NATIVE // factor}.",
                "Name the size: `size` 512",
            )
        image_size = sides[0] * factor
    return checked_size(image_size, image_size, factor)


def checked_size(image_size: int | None, native: int, factor: int) -> int:
    """The square's side in pixels.

    Raises:
        DiffcleanError: the network cannot work at that size.
    """
    size = image_size or native
    # Every down-sampling of the U-Net halves the latent; eight latents a side are the least that is of any use.
    if size % (8 * factor) or size < 8 * factor:
        near = max(1, math.floor(size / (8 * factor) + 0.5)) * 8 * factor
        raise DiffcleanError(
            f"This model cannot regenerate squares of {size} px: a multiple of {8 * factor} is needed.",
            f"Try: `size` {near}",
        )
    return size
