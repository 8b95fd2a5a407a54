"""Which families there are, and the recipes that name a model of one."""

from __future__ import annotations

import importlib
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffclean.errors import DiffcleanError, UsageError
from diffclean.families.base import Family

FAMILIES = {"micro": "diffclean.families.micro:Micro"}
"""Family name -> where its class is. A new family is one line here, one file beside this one, one recipe."""


def family_named(name: str) -> Family:
    """The family called `name`.

    Raises:
        DiffcleanError: there is none.
    """
    if name not in FAMILIES:
        raise DiffcleanError(f"There is no family {name!r}.", f"Known: {', '.join(sorted(FAMILIES))}.")
    module, _, attribute = FAMILIES[name].partition(":")
    family: Family = getattr(importlib.import_module(module), attribute)()
    return family


@dataclass(frozen=True)
class Recipe:
    """How one model is run: the family, where the weights are, and measured defaults.

    Attributes:
        name: what `--engine` calls it.
        family: its family.
        directory: the model directory.
        defaults: steps, strength, scheduler, guidance, batch.
        license_note: what the weights may be used for.
    """

    name: str
    family: str
    directory: Path
    defaults: dict[str, Any]
    license_note: str = ""


_DEFAULTS: dict[str, tuple[type, ...]] = {
    "steps": (int,),
    "strength": (int, float),
    "guidance": (int, float),
    "scheduler": (str,),
    "batch": (int,),
}


def engines_root() -> Path:
    """Where recipes and the embedded model are: inside an installed package, beside it in a checkout."""
    package = Path(__file__).parents[1]
    inside = package / "_engines"
    return inside if inside.is_dir() else package.parent / "engines"


def recipe_names() -> list[str]:
    """Every shipped recipe, sorted."""
    return sorted(path.stem for path in engines_root().glob("*.toml"))


def load_recipe(name: str) -> Recipe:
    """Read a shipped recipe by name, or a TOML file of the same form by path.

    Raises:
        UsageError: no such recipe, or the file is not one.
    """
    path = Path(name) if name.endswith(".toml") else engines_root() / f"{name}.toml"
    if not path.is_file():
        raise UsageError(
            f"There is no engine {name!r}.",
            f"Give one of {', '.join(recipe_names())}, an engine directory, a model directory, or a recipe (.toml).",
        )
    try:
        content = tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not valid TOML: {error}.") from error
    try:
        family, place, defaults = content["family"], content["source"]["path"], dict(content["defaults"])
        complete = all(isinstance(defaults[key], kind) for key, kind in _DEFAULTS.items())
    except (KeyError, TypeError, ValueError):
        complete = False
    if not complete or not isinstance(family, str) or not isinstance(place, str):
        raise UsageError(
            f"{path} is not a recipe: it needs `family`, `[source] path` and `[defaults]` with numbers for steps, "
            "strength, guidance and batch, and the name of a scheduler."
        )
    return Recipe(path.stem, family, (path.parent / place).resolve(), defaults, str(content.get("license", "")))


def recipe_for(engine: str) -> Recipe:
    """What `--engine` names: a recipe, or a model directory (run with its family's shipped defaults).

    A shipped name comes first: a folder `micro` that happens to lie here is `./micro`.

    Raises:
        DiffcleanError: a folder that holds no model; or as `load_recipe`.
    """
    directory = Path(engine)
    if engine not in recipe_names() and directory.is_dir():
        if not (directory / "model_index.json").is_file():
            raise DiffcleanError(
                f"{directory} is neither an engine (it has no engine.json) nor a model (no model_index.json).",
                "Point at the `model` folder that `diffclean pretrain` writes.",
            )
        return Recipe(directory.resolve().name, "micro", directory.resolve(), load_recipe("micro").defaults)
    return load_recipe(engine)
