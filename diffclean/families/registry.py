"""The registry of families, and the recipes, each of which names a model of a family."""

from __future__ import annotations

import importlib
import logging
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from diffclean.data.json_file import read_json
from diffclean.errors import DiffcleanError, UsageError
from diffclean.families.base import Family, Model
from diffclean.families.lookalikes import check_known

log = logging.getLogger(__name__)

FAMILIES = {
    "flux-redux": "diffclean.families.flux_redux:FluxRedux",
    "instruct-pix2pix": "diffclean.families.instruct_pix2pix:InstructPix2Pix",
    "ip-adapter": "diffclean.families.ip_adapter:IpAdapter",
    "ip-adapter-sdxl": "diffclean.families.ip_adapter_sdxl:IpAdapterSdxl",
    "kandinsky": "diffclean.families.kandinsky:Kandinsky",
    "micro": "diffclean.families.micro:Micro",
    "sd-image-variations": "diffclean.families.sd_image_variations:SdImageVariations",
    "sd-img2img": "diffclean.families.sd_img2img:SdImg2Img",
    "sdxl-img2img": "diffclean.families.sdxl_img2img:SdxlImg2Img",
    "stable-unclip": "diffclean.families.stable_unclip:StableUnclip",
    "versatile-diffusion": "diffclean.families.versatile_diffusion:VersatileDiffusion",
}
"""Maps the name of a family to the location of its class. A new family needs a line here, a file beside this one, and a
recipe."""


def family_named(name: str) -> Family:
    """The family with a name.

    Raises:
        DiffcleanError: there is no such family.
    """
    if name not in FAMILIES:
        raise DiffcleanError(f"There is no family {name!r}.", f"Known: {', '.join(sorted(FAMILIES))}.")
    module, _, attribute = FAMILIES[name].partition(":")
    family: Family = getattr(importlib.import_module(module), attribute)()
    return family


def load_model(family: Family, directory: Path, image_size: int | None = None) -> Model:
    """Load a model with its family; if its parts do not fit together, raise an error with a readable message.

    Raises:
        DiffcleanError: as for `Family.load`, or the parts do not fit together.
    """
    try:
        return family.load(directory, image_size)
    except _MISFITS as error:
        if type(error).__name__ == "OutOfMemoryError":
            raise
        reason = (str(error).strip().splitlines() or [""])[0]
        raise DiffcleanError(
            f"The parts of {directory} do not fit together ({type(error).__name__}: {reason}).",
            "They may belong to different models, or may have been changed. Copy the model again; --traceback shows "
            "where it fails.",
        ) from error


_MISFITS = (ArithmeticError, AssertionError, AttributeError, LookupError, RecursionError, RuntimeError, TypeError,
            ValueError)  # fmt: skip


@dataclass(frozen=True)
class HubModel:
    """A model on a hub.

    Attributes:
        repository: "owner/name".
        revision: a commit, tag or branch; only a commit cannot change.
        sha256: the hashes of files by path, as far as they are known.
    """

    repository: str
    revision: str = "main"
    sha256: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.repository}@{self.revision}"

    @property
    def is_pinned(self) -> bool:
        """Whether the revision is a commit, so that what is fetched cannot change."""
        return re.fullmatch("[0-9a-f]{40}", self.revision) is not None


@dataclass(frozen=True)
class HubPart:
    """A folder or a file of a model on a hub.

    Attributes:
        model: the model.
        path: the path of the folder, or of the file.
    """

    model: HubModel
    path: str

    @classmethod
    def parse(cls, text: str) -> HubPart:
        """The part that a recipe writes as `owner/name@revision:path`.

        Raises:
            ValueError: the text has another form.
        """
        match = _HUB_PART.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} is not owner/name@revision:path")
        return cls(HubModel(match[1], match[2]), match[3])

    def __str__(self) -> str:
        return f"{self.model}:{self.path}"


_HUB_PART = re.compile(r"(\w[\w.-]*/\w[\w.-]*)@([\w.-]+):(\w[\w.-]*(?:/\w[\w.-]*)*)", re.ASCII)


@dataclass(frozen=True)
class Parameters:
    """The size of a model, from which its need of disk and memory is estimated before anything is fetched.

    Attributes:
        engine: the count of numbers in the networks that become graphs.
        fetched: the same for all networks that are read, with those that are used only in an export.
    """

    engine: int
    fetched: int

    @property
    def bytes_fetched(self) -> int:
        """The approximate number of bytes that are fetched; hubs keep weights in fp32."""
        return 4 * self.fetched

    def bytes_to_run(self, precision: str) -> int:
        """The approximate memory that the weights of the engine take; what lies between the layers is not included."""
        return self.engine * (4 if precision == "fp32" else 2)

    @property
    def bytes_to_export(self) -> int:
        """The approximate peak of memory in an export, half as much again as all weights take in fp32.

        In benchmarks/results/export_full_size.json it was 1.4 to 1.5 times as much.
        """
        return 6 * self.fetched


@dataclass(frozen=True)
class Recipe:
    """How a model is run: its family, the location of its weights, and measured defaults.

    Attributes:
        name: the name that `--engine` takes.
        family: the name of its family.
        directory: the model directory; None if it must be fetched from a hub first (`hub.located`).
        defaults: steps, strength, scheduler, guidance, batch, detail; "" as scheduler stands for the model's own.
        license_note: what the weights may be used for.
        hub: the hub's model to fetch.
        production: whether the licence lets everybody use the weights in production.
        extras: folders of the model that come from other places on a hub, each with its place.
        parameters: how many numbers the networks have, if that is known.
        lora: a file or folder with a LoRA that is fused into the model (`adapted`).
        lora_scale: the factor of the LoRA; 1 is the LoRA as it was trained.
        scheduler: what replaces entries in the configuration of the model's scheduler.
    """

    name: str
    family: str
    directory: Path | None
    defaults: dict[str, Any]
    license_note: str = ""
    hub: HubModel | None = None
    production: bool = True
    parameters: Parameters | None = None
    extras: Mapping[str, HubPart] = field(default_factory=dict)
    lora: Path | None = None
    lora_scale: float = 1.0
    scheduler: Mapping[str, Any] = field(default_factory=dict)

    @property
    def unpinned(self) -> list[str]:
        """The places on a hub, as "owner/name@revision", whose revision is not a commit."""
        places = [self.hub, *(part.model for part in self.extras.values())]
        return list(dict.fromkeys(str(place) for place in places if place is not None and not place.is_pinned))


_DEFAULTS: dict[str, tuple[type, ...]] = {
    "steps": (int,),
    "strength": (int, float),
    "guidance": (int, float),
    "scheduler": (str,),
    "batch": (int,),
    "detail": (int,),
}


def engines_root() -> Path:
    """The folder of the recipes and the embedded model, inside an installed package or beside it in a checkout."""
    package = Path(__file__).parents[1]
    inside = package / "_engines"
    return inside if inside.is_dir() else package.parent / "engines"


def recipe_names() -> list[str]:
    """The names of all shipped recipes, sorted."""
    return sorted(path.stem for path in engines_root().glob("*.toml"))


def load_recipe(name: str) -> Recipe:
    """Read a shipped recipe by name, or a TOML file of the same form by path.

    Raises:
        UsageError: there is no such recipe, or the file is not a recipe.
    """
    path = Path(name) if name.endswith(".toml") else engines_root() / f"{name}.toml"
    if not path.is_file():
        raise UsageError(
            f"There is no engine {name!r}.",
            f"Give one of {', '.join(recipe_names())}, an engine directory, a model directory, a recipe (.toml), "
            "or a model on a hub (owner/name).",
        )
    try:
        content = tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"{path} is not valid TOML: {error}.") from error
    try:
        family, source = content["family"], dict(content["source"])
        defaults = {"detail": 1, **content["defaults"]}  # 1 stands for one window, whatever the size of the square
        complete = all(isinstance(defaults[key], kind) for key, kind in _DEFAULTS.items())
        hub = HubModel(source["hub"], source["revision"], dict(source.get("sha256", {}))) if "hub" in source else None
        extras = {str(name): HubPart.parse(place) for name, place in dict(source.get("parts", {})).items()}
        place = None if hub else (path.parent / source["path"]).resolve()
        size = {name: 10**6 * int(count) for name, count in dict(content.get("parameters", {})).items()}  # in millions
        parameters = Parameters(**size) if size else None
        lora = (path.parent / source["lora"]).resolve() if "lora" in source else None
        lora_scale, scheduler = float(source.get("lora_scale", 1)), dict(content.get("scheduler", {}))
    except (KeyError, TypeError, ValueError):
        complete = False
    if not complete or not isinstance(family, str) or (extras and hub is None):
        raise UsageError(
            f"{path} is not a recipe: it needs `family`, `[source]` with a `path` or with `hub` and `revision`, and "
            "`[defaults]` with numbers for steps, strength, guidance and batch, and the name of a scheduler. "
            "`[parameters]` holds millions of numbers, `engine` and `fetched`. `[source.parts]` goes with a `hub`, and "
            "its values have the form owner/name@revision:path. "
            "`[source]` may also have a `lora` with a `lora_scale`, and `[scheduler]` may change the model's scheduler."
        )
    terms = str(content.get("license", "")), hub, content.get("production", True) is True
    return Recipe(path.stem, family, place, defaults, *terms, parameters, extras, lora, lora_scale, scheduler)


def say_terms(recipe: Recipe) -> None:
    """Log the licence of weights that are not for everybody's production, before any work is done with them."""
    if not recipe.production:
        log.warning("The weights of %s are not free for production. Licence: %s.", recipe.name, recipe.license_note)


def recipe_for(engine: str) -> Recipe:
    """Find what `--engine` and `export` name: a recipe, a model directory, or a hub's model ("owner/name[@revision]").

    A directory or a hub's model uses the defaults of its family's recipe and its own scheduler. Names of shipped
    recipes take precedence: to use a folder called `micro`, write `./micro`.

    Raises:
        DiffcleanError: the folder holds no model or a model of an unknown family, or as for `load_recipe`.
        UsageError: the name can only be that of a folder, and there is no such folder.
    """
    directory = Path(engine)
    if engine not in recipe_names() and directory.is_file() and not engine.endswith(".toml"):
        check_known(directory)
    if engine not in recipe_names() and directory.is_dir():
        family = family_of(directory)
        own = {"scheduler": ""} if family != "micro" else {}
        return unlike(load_recipe(family), directory.resolve().name, directory.resolve(), own)
    if (match := _HUB_ID.fullmatch(engine)) and not engine.endswith(".toml"):
        # The family is found when the model has been fetched, see `hub.located`.
        repository, revision = match[1], match[2] or "main"
        if match[2] is None and (parent := directory.parent).is_dir():
            raise UsageError(
                f"There is no folder {engine}; the folder {parent}/ exists and holds {_listed(parent)}.",
                f"If you mean a model on a hub, type {repository}@main",
            )
        known = next((r for r in map(load_recipe, recipe_names()) if r.hub and r.hub.repository == repository), None)
        if known and known.hub and match[2] in (None, known.hub.revision):
            return known
        return Recipe(repository.replace("/", "--"), "", None, {}, "", HubModel(repository, revision))
    return load_recipe(engine)


def unlike(recipe: Recipe, name: str, directory: Path, defaults: Mapping[str, Any]) -> Recipe:
    """The recipe of a family for another model of it, whose licence and size are its own.

    Args:
        recipe: the recipe of the family.
        name: the name of the other model.
        directory: its directory.
        defaults: what is set in place of the defaults of the recipe.
    """
    note = family_named(recipe.family).license_note
    mine = {**recipe.defaults, **defaults}
    return replace(recipe, name=name, directory=directory, defaults=mine, license_note=note, hub=None, parameters=None)


def _listed(folder: Path) -> str:
    """The names of the folders in a folder, for a message."""
    names = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    return (", ".join(names[:5]) + (", ..." if len(names) > 5 else "")) if names else "no folders"


_HUB_ID = re.compile(r"(\w[\w.-]*/\w[\w.-]*)(?:@([\w./-]+))?", re.ASCII)


def family_of(directory: Path) -> str:
    """The family of a model directory, according to its `model_index.json`.

    Raises:
        DiffcleanError: there is no such file, it is damaged, or no family has models of that kind.
    """
    index = directory / "model_index.json"
    if not index.is_file():
        check_known(directory)
        raise DiffcleanError(
            f"{directory} is neither an engine (it has no engine.json) nor a model (it has no model_index.json).",
            "Point at the folder named model that `diffclean pretrain` writes, or at a model in diffusers' layout.",
        )
    content = read_json(index)
    found = content.get("_class_name") if isinstance(content, dict) else None
    if not isinstance(found, str):
        raise DiffcleanError(f"{index} is damaged: it names no pipeline (_class_name).")
    if (directory / "ip_adapter").is_dir():  # diffusers has no layout for a model with an adapter; this is ours
        found += "+ip_adapter"
    kinds = {kind: name for name in reversed(FAMILIES) for kind in family_named(name).pipelines}  # the first wins
    if found not in kinds:
        raise DiffcleanError(
            f"{directory} holds a {found}, which no family of diffclean can run.",
            f"Known: {', '.join(sorted(kinds))}.",
        )
    return kinds[found]
