"""Reads the parts of a model directory: configurations and networks, which are checked before anything runs them."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from diffclean.data.json_file import read_json
from diffclean.errors import DiffcleanError
from diffclean.families.bounds import check_finite, safetensors_header
from diffclean.families.weights import Weights, weights_in

LARGEST_NATIVE = 2048
"""The side, in pixels, of the largest square that a configuration may ask for; `--size` may ask for more."""
_LARGEST_NUMBER = 2**20
"""The largest number that is accepted in a configuration, for example as a width or the size of a vocabulary."""


def read_config(directory: Path, part: str, file: str = "config.json") -> dict[str, Any]:
    """Read the configuration of a part of a model directory.

    Raises:
        DiffcleanError: the file is missing or damaged.
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
    """Read one network of a model directory in fp32, from safetensors only.

    Args:
        cls: the class of the network in diffusers or transformers.
        directory: the model directory.
        part: the folder of the network.
        arguments: further arguments of `from_pretrained`.

    Raises:
        DiffcleanError: the network is missing or of another class, or its weights do not fit.
    """
    import diffusers
    import transformers

    for library in (diffusers, transformers):
        library.utils.logging.disable_progress_bar()
        library.utils.logging.set_verbosity_error()  # the checks below replace the libraries' own warnings
    found = read_config(directory, part)
    architectures = found.get("architectures")
    own = architectures[0] if isinstance(architectures, list) and architectures else cls.__name__
    name = found.get("_class_name") or own
    # A CLIP model with a projection may declare itself as one without; its weights are checked below.
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
            f"The weights in {directory / part} cannot be read: {reason}",
            "They may be incomplete. Copy them again.",
        ) from error
    # Buffers like CLIP's position_ids were saved by older versions only, and are created again.
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
            raise DiffcleanError(f"{folder}/config.json has {len(value)} entries for {key}; no network has that many.")


def _weights(folder: Path) -> Weights:
    """The weights of a part that are read."""
    weights = weights_in(folder)
    if weights is None:
        raise DiffcleanError(
            f"There are no weights in {folder}.", "Expected: safetensors, as `save_pretrained` writes."
        )
    if weights.pickled:
        raise DiffcleanError(
            f"{folder} has only pickled weights ({weights.files[0]}), which are not read directly.",
            "`diffclean export` converts them into safetensors first.",
        )
    return weights


def load_unet(directory: Path, part: str, context: int | None, *, may_have: Collection[str] = (), **others: Any) -> Any:
    """Read a U-Net that is conditioned by cross-attention, and that needs no other input than those that are named.

    Args:
        directory: the model directory.
        part: the folder of the network.
        context: the width of one token of its context; None if any width is right.
        others: what the family expects in the network's configuration, if it is not diffusers' default; for example
            `addition_embed_type="text_time"`. A family whose network does not give as many channels as it takes
            gives the expected `in_channels`.
        may_have: the keys of other inputs that the caller provides if the network has them.

    Raises:
        DiffcleanError: as for `load_part`, or the network needs another input.
    """
    from diffusers import UNet2DConditionModel

    unet = load_part(UNet2DConditionModel, directory, part)
    expected = {
        "in_channels": unet.config.out_channels,
        "cross_attention_dim": unet.config.cross_attention_dim if context is None else context,
        "class_embed_type": None,
        "num_class_embeds": None,
        "addition_embed_type": None,
        "time_cond_proj_dim": None,
        "encoder_hid_dim": None,
        "encoder_hid_dim_type": None,
        **others,
    }
    found = {name: unet.config.get(name) for name in expected}
    wrong = [
        f"{name} {found[name]} (expected {value})"
        for name, value in expected.items()
        if found[name] != value and name not in may_have
    ]
    if wrong:
        raise DiffcleanError(
            f"The network in {directory / part} is not the one that its pipeline names: {', '.join(wrong)}.",
            "This family cannot run inpainting and adapted checkpoints, and only sd-img2img can run LCM checkpoints. "
            "If the parts come from different models, copy all of them from one.",
        )
    return unet


def square_of(image_size: int | None, unet: Any, vae: Any) -> int:
    """The side in pixels of the square that a U-Net and a VAE regenerate together.

    Args:
        image_size: the side that is asked for; None stands for the U-Net's own.
        unet: a U-Net of diffusers.
        vae: a VAE of diffusers.

    Raises:
        DiffcleanError: they do not belong together, name no size, or cannot work at this one.
    """
    latent = vae.config.latent_channels
    # Some U-Nets take the source's latent beside the sample, and some also give a variance.
    if (channels := min(unet.config.in_channels, unet.config.out_channels)) != latent:
        raise DiffcleanError(
            f"The U-Net works on {channels} channels, but the VAE makes {latent}: they belong to different models.",
            "Copy all parts from the same model.",
        )
    colours = (vae.config.in_channels, vae.config.out_channels)
    if colours != (3, 3):
        raise DiffcleanError(f"The VAE takes {colours[0]} and gives {colours[1]} colours; expected 3 and 3.")
    factor = int(2 ** (len(vae.config.block_out_channels) - 1))
    found = unet.config.sample_size
    sides = list(found) if isinstance(found, list | tuple) else [found]
    if image_size is None:
        if sides == [None]:
            raise DiffcleanError(
                "The model does not say which size it is made for (sample_size).", "Give a size: `size` 512"
            )
        if len(set(map(str, sides))) != 1:
            raise DiffcleanError(
                f"The model is made for {sides}, which is not a square.", "Give the side of a square: `size` 512"
            )
        if type(sides[0]) is not int or not 0 < sides[0] * factor <= LARGEST_NATIVE:
            raise DiffcleanError(
                f"The model's sample_size is {sides[0]}; expected a number up to {LARGEST_NATIVE // factor}.",
                "Give the size: `size` 512",
            )
        image_size = sides[0] * factor
    return checked_size(image_size, image_size, factor)


def checked_size(image_size: int | None, native: int, factor: int) -> int:
    """The side of the square in pixels, after a check that the network can work at it.

    Raises:
        DiffcleanError: the network cannot work at that size.
    """
    size = image_size or native
    # Every down-sampling of the U-Net halves the latent, so the smallest useful latent has a side of eight.
    if size % (8 * factor) or size < 8 * factor:
        near = max(1, math.floor(size / (8 * factor) + 0.5)) * 8 * factor
        raise DiffcleanError(
            f"This model cannot regenerate squares of {size} px; the side must be a multiple of {8 * factor}.",
            f"Try: `size` {near}",
        )
    return size
