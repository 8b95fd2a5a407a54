"""Recognises what users give in place of a model: a single file, a LoRA, a part of a model, or the cache of a hub."""

from __future__ import annotations

from pathlib import Path

from diffclean.errors import DiffcleanError, UsageError
from diffclean.families.bounds import safetensors_header

_LORA_FILES = ("pytorch_lora_weights.safetensors", "pytorch_lora_weights.bin", "adapter_config.json")
_MERGE = (
    "A LoRA changes another model and is not a model by itself. Name both in a recipe, for example mine.toml with\n"
    "[source]\npath = 'MODEL'\nlora = {name!r}\n"
    "and give --engine mine.toml. The section 'Few-step models and LoRAs' of docs/families.md shows a whole recipe."
)
_UNPACK = (
    "Convert it into a folder where you have diffusers:\n"
    "StableDiffusionPipeline.from_single_file({name!r}).save_pretrained('model')\n"
    "Then give the folder model."
)


def check_known(place: Path) -> None:
    """Recognise what a path without a model holds, and tell the user what to type.

    Args:
        place: a file, or a folder without `model_index.json`.

    Raises:
        DiffcleanError: it is a LoRA, a single file, a part of a model, or a hub's cache.
    """
    if place.is_file():
        _check_file(place)
    elif lora := next((name for name in _LORA_FILES if (place / name).is_file()), None):
        raise DiffcleanError(f"{place} is a LoRA ({lora}), not a whole model.", _MERGE.format(name=str(place)))
    elif copies := _copies(place):
        raise DiffcleanError(
            f"{place} is the cache of a hub; the models are folders inside it.", f"Give one of: {', '.join(copies[:5])}"
        )
    elif (place.parent / "model_index.json").is_file() and (place / "config.json").is_file():
        raise DiffcleanError(f"{place} is only a part of a model.", f"Give the whole model: {place.parent}")
    elif files := sorted(path.name for path in place.glob("*.safetensors")):
        _check_file(place / files[0])


def _copies(place: Path) -> list[str]:
    """The model folders in a hub's cache: below its root, or below the folder of one model."""
    found = [*place.glob("snapshots/*/model_index.json"), *place.glob("models--*/snapshots/*/model_index.json"),
             *place.glob("hub/models--*/snapshots/*/model_index.json")]  # fmt: skip
    return sorted(str(path.parent) for path in found)


def _check_file(path: Path) -> None:
    if path.suffix == ".safetensors":
        names = safetensors_header(path)
        if any("lora" in name.lower() for name in names):
            raise DiffcleanError(f"{path} is a LoRA, not a whole model.", _MERGE.format(name=str(path)))
        if any(name.startswith("ip_adapter.") for name in names):
            raise DiffcleanError(
                f"{path} is an IP-Adapter, not a whole model.",
                "Copy it into the folder ip_adapter/ of the model that it was made for, and its image encoder into "
                "image_encoder/, and give the folder of that model. Or give a recipe: --engine ip-adapter",
            )
    if path.suffix in (".safetensors", ".ckpt", ".pt", ".pth", ".bin"):
        raise DiffcleanError(
            f"{path} is a single file of weights, but a folder with model_index.json in diffusers' layout is needed.",
            _UNPACK.format(name=str(path)),
        )
    raise UsageError(
        f"{path} is a file and not an engine.",
        "Give a recipe (.toml), the folder of a model, or the folder of an engine.",
    )
