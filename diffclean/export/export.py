"""`diffclean export`: makes a model's engine with the compiled forms that are asked for."""

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
from diffclean.export.eight_bit import check_stored
from diffclean.export.forms import CompileOptions, form_for
from diffclean.families.bounds import numbers_in, safetensors_header
from diffclean.families.hub import located
from diffclean.families.registry import Recipe, family_named, recipe_for, say_terms
from diffclean.families.weights import weights_in
from diffclean.progress import Progress


@dataclass(frozen=True)
class Request:
    """The arguments of an export. None stands for the default.

    Attributes:
        model: a recipe, a model directory, or a model on a hub.
        out: the engine directory; None stands for one in the cache, where `variate` finds it.
        targets: some of `forms.TARGETS`.
        precision: the precision of the graphs; None stands for fp16 for a GPU, else fp32.
        batch: the batch sizes of TensorRT engines; None stands for one to the batch of the recipe.
        image_size: the side of the square that the engine regenerates, in pixels; None stands for the model's own.
        arch: the GPUs to compile for (TensorRT-RTX); None stands for a form that runs on most.
        overwrite: whether another engine in `out` may be replaced.
        weights: how the large weights of the denoiser are stored, int8 or fp8; None stands for the precision.
    """

    model: str
    out: Path | None = None
    targets: tuple[str, ...] = ("onnx",)
    precision: str | None = None
    batch: Profile | None = None
    image_size: int | None = None
    arch: tuple[Arch, ...] | None = None
    overwrite: bool = False
    weights: str | None = None

    def options(self) -> ExportOptions:
        """The options of the graphs."""
        from diffclean.runtime.choose import graph_precision

        usual = "fp16" if set(self.targets) & set(FLAVOURS) else graph_precision("auto", None)
        check_stored(self.weights)
        return ExportOptions(self.precision or usual, self.image_size, self.weights)

    def recipe(self) -> Recipe:
        """The model with its family; a hub's model may have to be fetched for that."""
        recipe = recipe_for(self.model)
        return recipe if recipe.family else located(recipe)

    def compiling(self, recipe: Recipe) -> CompileOptions:
        """The options of the compiled forms."""
        usual = int(recipe.defaults["batch"])
        guided = recipe.defaults["guidance"] != 1
        batch = self.batch or Profile(1, usual, usual)
        return CompileOptions(self.targets, batch, guided, self.arch, weights=self.weights)


@dataclass(frozen=True)
class MadeEngine:
    """The engine after an export.

    Attributes:
        place: the engine directory.
        manifest: its content.
        exported: why the graphs were made just now; None if they existed already.
        outcomes: one for each compiled form.
    """

    place: Path
    manifest: EngineManifest
    exported: str | None
    outcomes: list[Outcome]


def export(request: Request, progress: Progress | None = None, stop: threading.Event | None = None) -> MadeEngine:
    """Make what is missing, and keep what exists and fits.

    Raises:
        Interrupted: `stop` was set; the same call continues.
        DiffcleanError: see `cache.ensured_engine` and `compiled.compile_engine`.
    """
    recipe = request.recipe()
    say_terms(recipe)
    options, compiling = request.options(), request.compiling(recipe)
    check_targets(compiling)
    place, exported = ensured_engine(recipe, options, progress, request.out, request.overwrite, stop)
    place = writable(place)
    outcomes = compile_engine(place, compiling, progress, stop)
    return MadeEngine(place, read_engine_manifest(place), exported, outcomes)


@dataclass(frozen=True)
class ExportPlan:
    """What an export would make.

    Attributes:
        place: the engine directory.
        options: the options of its graphs.
        compiling: the options of its compiled forms.
        graphs: why the graphs would be exported, "" if there are none yet; None if they exist and fit.
        compiled: (target, component, why it would be compiled); the reason is None if it exists and fits. The component
            of an engine that does not exist yet is "".
        bytes_a_form: the approximate size of one form; None if that is not known before the model is fetched.
        lacking: target -> why this machine cannot compile for it.
        recipe: the model.
    """

    place: Path
    options: ExportOptions
    compiling: CompileOptions
    graphs: str | None
    compiled: list[tuple[str, str, str | None]]
    bytes_a_form: int | None
    lacking: dict[str, DiffcleanError]
    recipe: Recipe

    @property
    def bytes(self) -> int | None:
        """The approximate number of bytes that would be written."""
        targets = {target for target, _, why in self.compiled if why is not None}
        forms = len(targets) + (self.graphs is not None)
        return 0 if not forms else None if self.bytes_a_form is None else forms * self.bytes_a_form

    @property
    def is_upper_bound(self) -> bool:
        """Whether `bytes` counts weights in the precision because it is not known which of them take eight bits."""
        return bool(self.bytes) and self.options.weights is not None and self.recipe.directory is None


def plan(request: Request) -> ExportPlan:
    """Find out what `export` would do, also on a machine that cannot do it, without fetching or writing anything.

    Raises:
        DiffcleanError: as for `export`, as far as it can be known beforehand.
    """
    recipe = recipe_for(request.model)
    options = request.options()
    if not recipe.family:  # a hub's model, which must be fetched before its family is known
        place = request.out or kept_place(recipe, {})
        batch = request.batch or Profile(1, 1, 1)
        compiling = CompileOptions(request.targets, batch, arch=request.arch, weights=request.weights)
        return ExportPlan(place, options, compiling, "", _all(request.targets), None, lacking(compiling), recipe)
    compiling = request.compiling(recipe)
    lacks = lacking(compiling)
    wanted = identity_of(recipe, options, source_of(recipe))
    place = request.out or place_of(recipe, wanted)
    graphs = unsound(place, wanted)
    size = _form_bytes(recipe, options)
    if graphs is not None:
        if request.out is not None:
            check_replaceable(place, wanted, request.overwrite)
        return ExportPlan(
            place, options, compiling, graphs if place.exists() else "", _all(request.targets), size, lacks, recipe
        )
    manifest = read_engine_manifest(place)
    forms = [form_for(target, compiling) for target in request.targets if target != "onnx"]
    compiled = [
        (form.target, name, "" if form.target in lacks else form.problem(place, manifest, name))
        for form in forms
        for name in manifest.components
    ]
    return ExportPlan(place, options, compiling, None, compiled, size, lacks, recipe)


def _all(targets: tuple[str, ...]) -> list[tuple[str, str, str | None]]:
    return [(target, "", "") for target in targets if target != "onnx"]


def _form_bytes(recipe: Recipe, options: ExportOptions) -> int | None:
    """The approximate size of one form of a model: that of its weights as they are stored.

    Of a model that is not here, only the count of all numbers is known; with weights in eight bits, the result is then
    too large by what they save.
    """
    if recipe.directory is None:
        return recipe.parameters.bytes_to_run(options.precision) if recipe.parameters else None
    parts = {pattern.split("/")[0] for pattern in family_named(recipe.family).parts if "/" in pattern}
    found = [(recipe.directory / part, weights_in(recipe.directory / part)) for part in sorted(parts)]
    files = [folder / name for folder, weights in found if weights is not None for name in weights.files]
    usual = 4 if options.precision == "fp32" else 2
    return sum(_numbers(path) * (1 if options.weights and _is_denoiser(path) else usual) for path in files)


def _is_denoiser(weights: Path) -> bool:
    """Whether a file of weights is in the folder of a denoiser."""
    return weights.parent.name.endswith(("unet", "transformer"))


def _numbers(path: Path) -> int:
    """The approximate count of numbers in a file of weights."""
    if path.suffix == ".json":
        return 0
    if path.suffix != ".safetensors":  # a pickle, usually in fp32
        return path.stat().st_size // 4
    try:
        return numbers_in(safetensors_header(path))
    except ValueError as error:
        raise DiffcleanError(f"{path} is damaged: {error}.") from error
