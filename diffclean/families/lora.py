"""Fuses a LoRA into the weights of a model: W + scale * (alpha / rank) * B A (Hu et al., "LoRA", arXiv 2106.09685).

diffusers' own class of the model's pipeline reads the LoRA, since LoRAs are stored in several forms that it knows. The
sum is computed here, on the files of the weights: diffusers would need the library peft for that, and it would need
every network in memory.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffclean.data.json_file import read_json
from diffclean.errors import DiffcleanError
from diffclean.families.bounds import check_tensors, safetensors_header
from diffclean.families.weights import weights_in

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)

_USUAL_NAME = "pytorch_lora_weights.safetensors"
_MERGE = (
    "Merge it where you have diffusers and peft: pipe.load_lora_weights(LORA); pipe.fuse_lora(); "
    "pipe.save_pretrained('merged'). Then give the folder merged."
)
_OTHER_KINDS = ("dora_scale", "lora_magnitude_vector", ".lokr_", ".hada_", ".diff", "lora_mid")
"""Parts of the names of tensors in adapters that are no plain LoRA."""


def lora_file(place: Path) -> Path:
    """The file of a LoRA: `place` itself, or the one in the folder `place`.

    Raises:
        DiffcleanError: there is none, there are several, or it is not in safetensors.
    """
    if place.is_dir():
        files = sorted(place.glob("*.safetensors"))
        usual = [path for path in files if path.name == _USUAL_NAME]
        if len(usual or files) != 1:
            found = ", ".join(path.name for path in sorted(place.iterdir())[:5]) or "nothing"
            raise DiffcleanError(
                f"The LoRA folder {place} holds {found}; expected: one file of safetensors, {_USUAL_NAME}.",
                "Name the file itself in the recipe: lora = 'folder/file.safetensors'",
            )
        place = (usual or files)[0]
    if not place.is_file() or place.suffix != ".safetensors":
        raise DiffcleanError(
            f"There is no LoRA {place}; expected: a file of safetensors, or a folder with one.",
            "A recipe names it relative to itself. A .bin or .pt is a pickle and is not read.",
        )
    return place


def fuse_lora(lora: Path, scale: float, base: Path, target: Path) -> None:
    """Write the weights of a model with a LoRA to `target`, for the parts that the LoRA changes.

    Args:
        lora: a file of safetensors.
        scale: the factor of the LoRA; 1 is the LoRA as it was trained.
        base: the model directory, with safetensors.
        target: a copy of the model directory, in which the files of weights are replaced.

    Raises:
        DiffcleanError: the LoRA is of a kind that is not fused, or was made for another model.
    """
    tensors, alphas, metadata = _read(lora, base)
    by_part: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        part, _, rest = name.partition(".")
        by_part.setdefault(part, {})[rest] = tensor
    for part, found in by_part.items():
        # The name of an alpha is that of a layer, or that of one of its tensors.
        own = {key.removesuffix(".alpha"): value for key, value in _below(part, alphas).items()}
        by_layer = {name.split(".lora_")[0]: alpha for name, alpha in _converted(part, own).items()}
        updates = _updates(lora, _converted(part, found), by_layer, _below(part, metadata), scale)
        _add(lora, updates, base / part, target / part)
        log.info("Fused the LoRA %s into %d layers of %s.", lora, len(updates), part)


def _read(lora: Path, base: Path) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, Any]]:
    """The tensors of a LoRA by part and layer, its alphas, and what it says about itself, read by diffusers."""
    import inspect

    import diffusers
    from diffusers.configuration_utils import FrozenDict

    names = safetensors_header(lora)
    if other := next((name for name in names if any(kind in name for kind in _OTHER_KINDS)), None):
        raise DiffcleanError(f"{lora} is not a plain LoRA: it holds {other:.200}.", _MERGE)
    pipeline = read_json(base / "model_index.json").get("_class_name")
    cls: Any = getattr(diffusers, str(pipeline), None)
    if not hasattr(cls, "lora_state_dict"):
        raise DiffcleanError(f"diffusers cannot use a LoRA with the model in {base}, a {pipeline}.")
    arguments: dict[str, Any] = {"use_safetensors": True, "local_files_only": True, "return_lora_metadata": True}
    if "return_alphas" in inspect.signature(cls.lora_state_dict).parameters:
        arguments["return_alphas"] = True
    elif (base / "unet" / "config.json").is_file():
        arguments["unet_config"] = FrozenDict(read_json(base / "unet" / "config.json"))
    try:
        tensors, alphas, metadata = cls.lora_state_dict(str(lora.parent), weight_name=lora.name, **arguments)
        check_tensors(lora, tensors)
    except (AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DiffcleanError(f"The LoRA {lora} cannot be read: {reason}", _MERGE) from error
    return tensors, alphas or {}, metadata or {}


def _below(part: str, table: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of one part, without its name."""
    return {name.removeprefix(f"{part}."): value for name, value in table.items() if name.startswith(f"{part}.")}


def _converted(part: str, table: Mapping[str, Any]) -> dict[str, Any]:
    """The same table with the names of peft: `layer.lora_A.weight` and `layer.lora_B.weight`."""
    from diffusers.utils import state_dict_utils as names

    if not part.startswith("text_encoder"):
        converted: dict[str, Any] = names.convert_unet_state_dict_to_peft(dict(table))
    else:
        old = any("_lora." in name for name in table)
        kind = names.StateDictType.DIFFUSERS_OLD if old else names.StateDictType.DIFFUSERS
        converted = names.convert_state_dict_to_peft(dict(table), kind)
    return converted


def _updates(
    lora: Path, tensors: Mapping[str, Tensor], alphas: Mapping[str, Any], facts: Mapping[str, Any], scale: float
) -> dict[str, tuple[Tensor, Tensor]]:
    """For each layer B, with all factors, and A."""
    unused = [name for name in tensors if not name.endswith((".lora_A.weight", ".lora_B.weight"))]
    patterns = [key for key in ("rank_pattern", "alpha_pattern") if facts.get(key)]
    if unused or patterns:
        raise DiffcleanError(f"{lora} is not a plain LoRA: it has {', '.join((unused or patterns)[:3])}.", _MERGE)
    updates = {}
    for name, down in tensors.items():
        if not name.endswith(".lora_A.weight"):
            continue
        layer = name.removesuffix(".lora_A.weight")
        up = tensors.get(f"{layer}.lora_B.weight")
        if up is None or up.ndim < 2 or up.shape[1] != down.shape[0]:
            raise DiffcleanError(f"{lora} is damaged: the two halves of {layer} do not fit together.")
        rank = down.shape[0]
        alpha = float(alphas.get(layer, facts.get("lora_alpha", rank)))
        factor = alpha / (math.sqrt(rank) if facts.get("use_rslora") else rank)
        updates[layer] = (scale * factor * up.float(), down.float())
    return updates


def _add(lora: Path, updates: Mapping[str, tuple[Tensor, Tensor]], base: Path, target: Path) -> None:
    """Write the files of a part's weights with the updates added; what changes is written in fp32."""
    from safetensors.torch import load_file, save_file

    weights = weights_in(base)
    left = dict(updates)
    for name in weights.files if weights else ():
        if not name.endswith(".safetensors"):
            continue
        content = load_file(base / name)
        for layer in list(left):
            # transformers has dropped `text_model.` from the names of a text encoder's layers.
            known = next((key for key in (layer, f"text_model.{layer}", layer.removeprefix("text_model."))
                          if f"{key}.weight" in content), None)  # fmt: skip
            if known is None:
                continue
            weight, (up, down) = content[f"{known}.weight"], left.pop(layer)
            change = up.flatten(1) @ down.flatten(1)
            if change.numel() != weight.numel() or len(change) != len(weight) or not change.isfinite().all():
                raise DiffcleanError(
                    f"The LoRA {lora} does not fit the model in {base.parent}: its {layer} has shape "
                    f"{tuple(change.shape)}, and the model's has {tuple(weight.shape)}.",
                    "It was made for another model, or it is damaged.",
                )
            content[f"{known}.weight"] = weight.float() + change.view(weight.shape)
        (target / name).unlink(missing_ok=True)
        save_file(content, target / name, metadata={"format": "pt"})
    if left:
        raise DiffcleanError(
            f"The LoRA {lora} does not fit the model in {base.parent}: {base.name} has no {sorted(left)[0]}.",
            "It was made for another model.",
        )
