"""How the parts of a model directory are read: configurations and networks, checked before anything runs them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from diffclean.errors import DiffcleanError
from diffclean.families.weights import weights_in


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
    try:
        config = json.loads(path.read_text())
    except ValueError as error:
        raise DiffcleanError(f"{path} is damaged: {error}.") from error
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
    found = read_config(directory, part)
    name = found.get("_class_name") or (found.get("architectures") or [cls.__name__])[0]
    # A CLIP model with a projection may say that it is one without: the weights decide, below.
    if cls.__name__ not in (name, f"{name}WithProjection"):
        raise DiffcleanError(f"{directory / part} holds a {name}; a {cls.__name__} was expected.")
    if (variant := _variant(directory / part)) is not None:
        arguments["variant"] = variant
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
    return module.float().eval().requires_grad_(False)


def _variant(folder: Path) -> str | None:
    """The variant that is read, as `from_pretrained` wants to be told; None is the plain weights."""
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
    return weights.variant


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
        "addition_embed_type": None,
        "time_cond_proj_dim": None,
        "encoder_hid_dim": None,
    }
    found = {name: unet.config.get(name) for name in expected}
    wrong = [f"{name} {found[name]} (expected {value})" for name, value in expected.items() if found[name] != value]
    if wrong:
        raise DiffcleanError(
            f"The network in {directory / part} is another one than its pipeline says: {', '.join(wrong)}.",
            "Inpainting, distilled (LCM) and adapted checkpoints are not known to this family.",
        )
    return unet


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
