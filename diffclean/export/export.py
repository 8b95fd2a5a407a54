"""What `diffclean export` does: a model's engine in one place, with the compiled forms that are asked for."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path

from diffclean.engine.manifest import EngineManifest, read_engine_manifest
from diffclean.engine.tensorrt_library import FLAVOURS
from diffclean.engine.tensorrt_targets import Arch, Profile
from diffclean.errors import DiffcleanError
from diffclean.export.build import ExportOptions
from diffclean.export.cache import (
    check_replaceable,
    ensured_engine,
    identity_of,
    kept_place,
    place_of,
    source_of,
    unsound,
    writable,
)
from diffclean.export.compiled import Outcome, check_targets, compile_engine, lacking
from diffclean.export.forms import CompileOptions, form_for
from diffclean.families.bounds import numbers_in, safetensors_header
from diffclean.families.hub import located
from diffclean.families.registry import Recipe, family_named, recipe_for
from diffclean.families.weights import weights_in
from diffclean.progress import Progress


@dataclass(frozen=True)
class Request:
    """What is asked for. None means the default.

    Attributes:
        model: a recipe, a model directory, or a model on a hub.
        out: the engine directory; None: one in the cache, where `variate` looks for it.
        targets: of `forms.TARGETS`.
        precision: of the graphs; None: fp16 where a GPU is meant, else fp32.
        batch: images a call (TensorRT); None: one to the recipe's.
        image_size: side of the square that the engine regenerates, in pixels; None: the model's own.
        arch: GPUs to compile for (TensorRT-RTX); None: what runs on most.
        overwrite: whether another engine in `out` is replaced.
    """

    model: str
    out: Path | None = None
    targets: tuple[str, ...] = ("onnx",)
    precision: str | None = None
    batch: Profile | None = None
    image_size: int | None = None
    arch: tuple[Arch, ...] | None = None
    overwrite: bool = False

    def options(self) -> ExportOptions:
        """What the graphs are made as."""
        from diffclean.runtime.choose import graph_precision

        usual = "fp16" if set(self.targets) & set(FLAVOURS) else graph_precision("auto", None)
        return ExportOptions(self.precision or usual, self.image_size)

    def recipe(self) -> Recipe:
        """The model, with its family: a hub's may have to be fetched to know it."""
        recipe = recipe_for(self.model)
        return recipe if recipe.family else located(recipe)

    def compiling(self, recipe: Recipe) -> CompileOptions:
        """What it is compiled for."""
        usual = int(recipe.defaults["batch"])
        guided = recipe.defaults["guidance"] != 1
        return CompileOptions(self.targets, self.batch or Profile(1, usual, usual), guided, self.arch)


@dataclass(frozen=True)
class MadeEngine:
    """What there is now.

    Attributes:
        place: the engine directory.
        manifest: its content.
        exported: why the graphs were made just now; None: they were there.
        outcomes: of each compiled form.
    """

    place: Path
    manifest: EngineManifest
    exported: str | None
    outcomes: list[Outcome]


def export(request: Request, progress: Progress | None = None, stop: threading.Event | None = None) -> MadeEngine:
    """Make what is missing; what is there and fits is kept.

    Raises:
        Interrupted: `stop` was set; the same call goes on.
        DiffcleanError: see `cache.ensured_engine` and `compiled.compile_engine`.
    """
    recipe = request.recipe()
    compiling = request.compiling(recipe)
    check_targets(compiling)
    place, exported = ensured_engine(recipe, request.options(), progress, request.out, request.overwrite, stop)
    place = writable(place)
    outcomes = compile_engine(place, compiling, progress, stop)
    return MadeEngine(place, read_engine_manifest(place), exported, outcomes)


@dataclass(frozen=True)
class ExportPlan:
    """What would be made.

    Attributes:
        place: the engine directory.
        options: what its graphs are made as.
        compiling: what it is compiled for.
        graphs: why the graphs would be exported, "" where there are none yet; None: they are there.
        compiled: (target, component, why it would be compiled; None: it is there and fits). The component of an engine
            that is not there yet is "".
        bytes_a_form: about how large a form is; None: the model is not here yet.
        lacking: target -> why this machine cannot compile for it.
    """

    place: Path
    options: ExportOptions
    compiling: CompileOptions
    graphs: str | None
    compiled: list[tuple[str, str, str | None]]
    bytes_a_form: int | None
    lacking: dict[str, DiffcleanError]

    @property
    def bytes(self) -> int | None:
        """About how much would be written."""
        targets = {target for target, _, why in self.compiled if why is not None}
        forms = len(targets) + (self.graphs is not None)
        return 0 if not forms else None if self.bytes_a_form is None else forms * self.bytes_a_form


def plan(request: Request) -> ExportPlan:
    """What `export` would do, also on a machine that cannot do it. Fetches nothing and writes nothing.

    Raises:
        DiffcleanError: as `export`, as far as it can be seen beforehand.
    """
    recipe = recipe_for(request.model)
    options = request.options()
    if not recipe.family:  # a hub's model, which has to be seen before its family is known
        place = request.out or kept_place(recipe, {})
        compiling = CompileOptions(request.targets, request.batch or Profile(1, 1, 1), arch=request.arch)
        return ExportPlan(place, options, compiling, "", _all(request.targets), None, lacking(compiling))
    compiling = request.compiling(recipe)
    lacks = lacking(compiling)
    wanted = identity_of(recipe, options, source_of(recipe))
    place = request.out or place_of(recipe, wanted)
    graphs = unsound(place, wanted)
    size = _form_bytes(recipe, options.precision)
    if graphs is not None:
        if request.out is not None:
            check_replaceable(place, wanted, request.overwrite)
        return ExportPlan(
            place, options, compiling, graphs if place.exists() else "", _all(request.targets), size, lacks
        )
    manifest = read_engine_manifest(place)
    forms = [form_for(target, compiling) for target in request.targets if target != "onnx"]
    compiled = [
        (form.target, name, "" if form.target in lacks else form.problem(place, manifest, name))
        for form in forms
        for name in manifest.components
    ]
    return ExportPlan(place, options, compiling, None, compiled, size, lacks)


def _all(targets: tuple[str, ...]) -> list[tuple[str, str, str | None]]:
    return [(target, "", "") for target in targets if target != "onnx"]


def _form_bytes(recipe: Recipe, precision: str) -> int | None:
    """About how large one form of a model is: its weights, in a precision."""
    if recipe.directory is None:
        return None
    parts = {pattern.split("/")[0] for pattern in family_named(recipe.family).parts if "/" in pattern}
    found = [(recipe.directory / part, weights_in(recipe.directory / part)) for part in sorted(parts)]
    files = [folder / name for folder, weights in found if weights is not None for name in weights.files]
    return sum(_numbers(path) for path in files) * (4 if precision == "fp32" else 2)


def _numbers(path: Path) -> int:
    """About how many numbers a file of weights holds."""
    if path.suffix == ".json":
        return 0
    if path.suffix != ".safetensors":  # a pickle, usually in fp32
        return path.stat().st_size // 4
    try:
        return numbers_in(safetensors_header(path))
    except ValueError as error:
        raise DiffcleanError(f"{path} is damaged: {error}.") from error
