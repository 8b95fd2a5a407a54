"""The model directory that an engine is made from: the recipe's model, with what the recipe changes of it.

A recipe may fuse a LoRA and change the configuration of the scheduler; models for few steps are often published in this
way. The changed model is a directory in the cache in diffusers' layout, with links to
the files that did not change, so that export, hashes and the runtime `torch` treat it like any other model.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from diffclean.data.atomic import temporary_folder, write_whole
from diffclean.data.hashes import sha256_of
from diffclean.data.json_file import read_json
from diffclean.environment import cache_dir
from diffclean.errors import DiffcleanError
from diffclean.families.lora import fuse_lora, lora_file
from diffclean.families.registry import Recipe, family_named
from diffclean.families.weights import with_safetensors


def changes_of(recipe: Recipe) -> dict[str, Any]:
    """What a recipe changes of its model, as a part of the engine's identity; empty for most recipes.

    Raises:
        DiffcleanError: there is no such LoRA.
    """
    changes: dict[str, Any] = {}
    if recipe.lora is not None:
        changes |= {"lora": sha256_of(lora_file(recipe.lora)), "lora_scale": recipe.lora_scale}
    if recipe.scheduler:
        changes["scheduler"] = dict(recipe.scheduler)
    return changes


def adapted(recipe: Recipe) -> Path:
    """The directory of a recipe's model with safetensors and with the recipe's changes; it is made on first use.

    Args:
        recipe: a recipe whose model is on this machine.

    Raises:
        DiffcleanError: as for `with_safetensors` and `fuse_lora`.
    """
    assert recipe.directory is not None
    parts = family_named(recipe.family).parts
    base = with_safetensors(recipe.directory, parts)
    changes = changes_of(recipe)
    if not changes:
        return base
    files = _files(base, ("model_index.json", *parts))
    listing = [(name, str(path), path.stat().st_size, path.stat().st_mtime_ns) for name, path in files.items()]
    key = hashlib.sha256(json.dumps([listing, changes], sort_keys=True).encode()).hexdigest()
    place = cache_dir() / "models" / f"{recipe.name}-{key[:16]}"
    if not place.is_dir():
        place.parent.mkdir(parents=True, exist_ok=True)
        with temporary_folder(place) as temporary:
            for name, path in files.items():
                (temporary / name).parent.mkdir(parents=True, exist_ok=True)
                (temporary / name).symlink_to(path)
            if recipe.lora is not None:
                fuse_lora(lora_file(recipe.lora), recipe.lora_scale, base, temporary)
            if recipe.scheduler:
                _change_scheduler(base, temporary, dict(recipe.scheduler))
            if not place.is_dir():
                temporary.rename(place)
    return place


def _files(directory: Path, patterns: tuple[str, ...]) -> dict[str, Path]:
    """The files of a model that match, by their path inside it."""
    found = sorted(path for pattern in patterns for path in directory.glob(pattern) if path.is_file())
    return {str(path.relative_to(directory)): path.resolve() for path in found}


def _change_scheduler(base: Path, target: Path, changes: dict[str, Any]) -> None:
    """Write the scheduler's configuration with changes, and its class into `model_index.json`, which decides it."""
    name = Path("scheduler") / "scheduler_config.json"
    if not (base / name).is_file():
        raise DiffcleanError(f"{base} is not a whole model: {name} is missing.")
    _rewrite(target / name, {**read_json(base / name, infinities=True), **changes})
    if "_class_name" in changes:
        index = read_json(base / "model_index.json")
        _rewrite(target / "model_index.json", {**index, "scheduler": ["diffusers", changes["_class_name"]]})


def _rewrite(path: Path, content: dict[str, Any]) -> None:
    path.unlink()  # a link to the file of the model, which must stay as it is
    write_whole(path, (json.dumps(content, indent=2) + "\n").encode())
