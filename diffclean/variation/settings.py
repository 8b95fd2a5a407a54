"""The settings of `variate`, and the engine that they name: found, exported if need be, and opened."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from diffclean.data.encode import ImageFormat
from diffclean.data.fit import LONGEST_SIDE, Fit, OutputSize
from diffclean.data.keys import variation_name
from diffclean.data.limits import Limits
from diffclean.data.registry import FOLDER
from diffclean.data.sinks import Sink
from diffclean.engine.manifest import FILE_NAME as ENGINE_FILE
from diffclean.engine.manifest import EngineManifest, read_engine_manifest
from diffclean.errors import UsageError
from diffclean.export.cache import ExportOptions, cached_engine
from diffclean.export.opening import open_compiled
from diffclean.families.adapted import adapted
from diffclean.families.hub import located
from diffclean.families.registry import Recipe, family_named, load_recipe, recipe_for, recipe_names, say_terms
from diffclean.families.schedulers import LATENT, NEAREST, read_scheduler
from diffclean.progress import Progress
from diffclean.runtime.choose import Engine, graph_precision
from diffclean.variation import defaults
from diffclean.variation.color import ColorTransfer
from diffclean.variation.labels import KEEP, NONE, identity_of
from diffclean.variation.sampler import Sampler, SamplerSettings
from diffclean.variation.schedule import SCHEDULERS, schedule_of, scheduler_for

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    """The settings of `variate`. None stands for the measured default of the recipe.

    Attributes:
        engine: the name of a recipe, an engine directory, or a model directory.
        runtime: "auto", or the name of a runtime.
        precision: "fp32", "fp16" or "bf16"; None stands for the runtime's best.
        steps: the number of denoising steps.
        strength: in (0, 1], how far a variation may differ from its source.
        guidance: the scale of classifier-free guidance; 1 turns it off.
        scheduler: ddim, dpm++, unipc or euler; "" stands for the model's own, or the nearest to it.
        guidance_interval: the noise levels (lowest, highest; 1 is pure noise) between which guidance is on.
        variations: the number of variations of each image.
        seed: the seed of the run.
        batch: the number of images or windows in a batch of the engine.
        size: the size of the variations.
        fit: how an image is made to fit the model's square.
        detail: the longer side to which a picture is reduced, in pixels; if it is more than the model's square, the
            picture is regenerated in windows.
        format: the file format of the variations.
        color_transfer: none, mean-std or lab.
        min_similarity: the similarity to its source that a variation must have, see `likeness`; None turns the quality
            gate off.
        labels: the labels of the variations: keep (those of the source), none, or the file of a classifier.
        pixel_limit: the largest image that is decoded, in pixels.
        byte_limit: the largest file that is read, in bytes.
        time_limit_s: the processor time in which an image must be decoded, in seconds.
        full_names: whether the name of a variation keeps the extension of the original.
        label_from: where the labels come from, see `data.labels`.
    """

    engine: str = defaults.ENGINE
    runtime: str = defaults.RUNTIME
    precision: str | None = None
    steps: int | None = None
    strength: float | None = None
    guidance: float | None = None
    scheduler: str | None = None
    guidance_interval: tuple[float, float] = defaults.GUIDANCE_INTERVAL
    variations: int = defaults.VARIATIONS
    seed: int = defaults.SEED
    batch: int | None = None
    size: OutputSize = field(default_factory=lambda: OutputSize.parse(defaults.SIZE))
    fit: Fit = Fit(defaults.FIT)  # noqa: RUF009 # a member of an enumeration cannot change
    detail: int | None = None
    format: ImageFormat = ImageFormat(defaults.FORMAT)  # noqa: RUF009
    color_transfer: ColorTransfer = ColorTransfer(defaults.COLOR_TRANSFER)  # noqa: RUF009
    min_similarity: float | None = None
    labels: str = defaults.LABELS
    pixel_limit: int = defaults.PIXEL_LIMIT
    byte_limit: int = defaults.BYTE_LIMIT
    time_limit_s: int = defaults.TIME_LIMIT_S
    full_names: bool = defaults.FULL_NAMES
    label_from: str | None = None

    def resolved(self, recipe: dict[str, Any]) -> Settings:
        """Fill in the defaults of the recipe, and check all values.

        Raises:
            UsageError: values are out of range; the message names all of them.
        """
        names = ("steps", "strength", "guidance", "scheduler", "batch", "detail")
        full = replace(self, **{name: recipe[name] for name in names if getattr(self, name) is None})
        assert full.steps is not None
        assert full.strength is not None
        assert full.guidance is not None
        assert full.batch is not None
        assert full.detail is not None
        low, high = full.guidance_interval
        least = full.min_similarity
        problems = [
            text
            for wrong, text in (
                (not 1 <= full.steps <= 1000, f"`steps` {full.steps} (1 to 1000)"),
                (not 0 < full.strength <= 1, f"`strength` {full.strength} (above 0, at most 1)"),
                (not 0 <= full.guidance <= 100, f"`guidance` {full.guidance} (0 to 100)"),
                (not 0 <= low <= high <= 1, f"`guidance_interval` {low:g}:{high:g} (low:high, both in 0 to 1)"),
                (full.scheduler not in (*SCHEDULERS, ""), f"`scheduler` {full.scheduler} ({', '.join(SCHEDULERS)})"),
                (not 1 <= full.variations <= 1000, f"`variations` {full.variations} (1 to 1000)"),
                (not 0 <= full.seed < 2**63, f"`seed` {full.seed} (0 to 2^63 - 1)"),
                (not 1 <= full.batch <= 4096, f"`batch` {full.batch} (1 to 4096)"),
                (not 1 <= full.detail <= LONGEST_SIDE, f"`detail` {full.detail} (1 to {LONGEST_SIDE})"),
                (least is not None and not 0 < least <= 1, f"`min_similarity` {least} (above 0, at most 1)"),
                (full.pixel_limit < 1, f"`pixel_limit` {full.pixel_limit} (1 or more)"),
                (full.byte_limit < 1, f"`byte_limit` {full.byte_limit} (1 or more)"),
                (not 1 <= full.time_limit_s <= 86_400, f"`time_limit_s` {full.time_limit_s} (1 to 86400)"),
            )
            if wrong
        ]
        if problems:
            raise UsageError("Out of range: " + "; ".join(problems) + ".")
        return full

    def for_json(self) -> dict[str, Any]:
        """The fields, with the size as it is typed on the command line."""
        return vars(self) | {"size": str(self.size)}

    @property
    def reading(self) -> dict[str, Any]:
        """The options with which `open_source` opens a data set."""
        return {"byte_limit": self.byte_limit, "label_from": self.label_from}

    def anywhere(self) -> Settings:
        """The same settings with paths that do not depend on the working directory."""

        def whole(path: str) -> str:
            return str(Path(path).resolve()) if Path(path).exists() else path

        engine = self.engine if self.engine in recipe_names() else whole(self.engine)
        labels = self.labels if self.labels in (KEEP, NONE) else whole(self.labels)
        return replace(self, engine=engine, labels=labels)

    def check_names(self, sink: Sink, keys: Iterable[str]) -> None:
        """Raise NameCollisionError if variations could not be in the same folder, see `Sink.check_keys`."""
        sink.check_keys(keys, self.variations, self.format.extension, self.full_names)

    def name_of(self, key: str, variant: int) -> str:
        """The path of a variation below the output folder."""
        return variation_name(key, variant, self.format.extension, self.full_names)

    @property
    def limits(self) -> Limits:
        """The limits of decoding."""
        return Limits(pixels=self.pixel_limit, seconds=self.time_limit_s)

    @property
    def sampler(self) -> SamplerSettings:
        """The part of resolved settings that the sampler needs."""
        assert self.steps is not None
        assert self.strength is not None
        assert self.guidance is not None
        assert self.scheduler is not None
        return SamplerSettings(self.steps, self.strength, self.guidance, self.scheduler, self.guidance_interval)

    def identity(self, engine: str) -> dict[str, Any]:
        """What determines the bytes of the output, apart from those of the images.

        A run can be resumed only with the same.

        Args:
            engine: `Engine.identity`.
        """
        content = asdict(self) | {"size": str(self.size), "engine": engine, "labels": identity_of(self.labels)}
        # The engine's identity contains the first two; the limits determine which images fail, but no bytes.
        for name in ("runtime", "precision", "pixel_limit", "byte_limit", "time_limit_s"):
            del content[name]
        if self.min_similarity is None:  # runs of earlier versions, which had no quality gate, do not name it
            del content["min_similarity"]
        return content


def identity_of_run(settings: Settings, engine: str, sink: Sink) -> dict[str, Any]:
    """`Settings.identity`, with the format of the output."""
    identity, place = settings.identity(engine), sink.describe()
    if place is not None and place.format != FOLDER:  # runs of earlier versions, which are folders, do not name it
        identity["to"] = place.format
    return identity


@dataclass(frozen=True)
class Located:
    """An engine that was found or exported, but is not open yet.

    Opening it takes seconds and half a gigabyte of memory.

    Attributes:
        recipe: the recipe that it was made from.
        directory: the engine directory.
        manifest: the manifest of the engine.
        settings: the resolved settings.
    """

    recipe: Recipe
    directory: Path
    manifest: EngineManifest
    settings: Settings

    def open(self, threads: int | None = None) -> Opened:
        """Open the engine. `threads` is the number of its threads, None stands for all cores."""
        settings = self.settings
        engine = open_compiled(self.directory, settings.runtime, settings.precision, threads)
        return Opened(self.recipe, engine, settings, threads)

    def could_be(self, identity: object) -> bool:
        """Whether this may turn out to be the engine with that identity (`Engine.identity`) when it is opened."""
        fingerprint, _, rest = str(identity).partition("/")
        runtime, _, precision = rest.partition("/")
        asked = self.settings
        same = fingerprint == self.manifest.fingerprint[:16]
        return same and asked.runtime in ("auto", runtime) and asked.precision in (None, precision)


@dataclass(frozen=True)
class Opened:
    """An open engine, with the settings that it is run with."""

    recipe: Recipe
    engine: Engine
    settings: Settings
    threads: int | None = None

    def sampler(self) -> Sampler:
        """A sampler that uses the engine."""
        return Sampler(self.engine, self.settings.sampler)

    @property
    def fallback(self) -> Callable[[], Sampler] | None:
        """Creates the sampler that repeats images whose values were not finite; None if nothing could repeat them.

        That is so if this engine uses fp32, or if its graphs are in half precision with weights in eight bits: the
        model would be run in their place, and gives other images.
        """
        manifest = self.engine.manifest
        if self.engine.runtime.precision == "fp32" or (manifest.weights and manifest.precision != "fp32"):
            return None
        return self.fp32_sampler

    def fp32_sampler(self) -> Sampler:
        """A sampler that uses the same engine in fp32."""
        log.warning("The engine gave values that are not finite; these images are repeated in fp32.")
        # A graph in half precision stays so in every runtime; then only the model itself can compute in fp32.
        runtime = self.engine.runtime.name if self.engine.manifest.precision == "fp32" else "torch"
        again = open_compiled(self.engine.directory, runtime, "fp32", self.threads)
        return Sampler(again, self.settings.sampler)


def recipe_of(settings: Settings) -> Recipe:
    """The recipe, model directory or engine directory that the settings name. Nothing is opened, so this is fast."""
    directory = Path(settings.engine)
    if settings.engine in recipe_names() or not (directory / ENGINE_FILE).is_file():
        recipe = recipe_for(settings.engine)
        return recipe if recipe.family else located(recipe)
    family = read_engine_manifest(directory).family
    return replace(load_recipe(family), name=directory.resolve().name, directory=directory, hub=None)


def locate(settings: Settings, progress: Progress | None = None) -> Located:
    """Find the engine that the settings name, and export it if need be."""
    recipe = recipe_of(settings)
    say_terms(recipe)
    settings = settings.resolved(recipe.defaults)
    directory = recipe.directory
    if directory is None or not (directory / ENGINE_FILE).is_file():
        options = ExportOptions(graph_precision(settings.runtime, settings.precision))
        directory = cached_engine(recipe, options, progress, partial(_check_before_export, recipe, settings))
    manifest = read_engine_manifest(directory)
    assert settings.detail is not None
    settings = replace(settings, detail=max(settings.detail, manifest.image_size))
    if not settings.scheduler:
        settings = replace(settings, scheduler=scheduler_for(manifest.scheduler))
    _check_schedule(manifest, settings)
    return Located(recipe, directory, manifest, settings)


def open_for(settings: Settings, threads: int | None = None, progress: Progress | None = None) -> Opened:
    """Find the engine that the settings name, export it if need be, and open it."""
    return locate(settings, progress).open(threads)


def _check_schedule(manifest: EngineManifest, settings: Settings) -> None:
    """Refuse settings that the sampler will refuse, before anything is written."""
    assert settings.steps is not None
    assert settings.strength is not None
    assert settings.scheduler is not None
    inputs = {port.name for port in manifest.components["unet"].inputs}
    look = family_named(manifest.family).look(settings.strength, inputs)
    schedule_of(settings.scheduler, manifest.scheduler, settings.steps, look.start)


def _check_before_export(recipe: Recipe, settings: Settings) -> None:
    """Check the schedule before an export, which takes minutes. That of a hub's model is not known before."""
    if recipe.directory is None or not recipe.directory.is_dir():
        return
    assert settings.steps is not None
    directory = adapted(recipe) if recipe.scheduler else recipe.directory
    family = family_named(recipe.family)
    parametrisations = getattr(family, "parametrisations", LATENT)
    config = read_scheduler(directory, "scheduler", getattr(family, "steps_offset", None), parametrisations)
    if config.get("use_dynamic_shifting"):
        config["mu"] = 1.0  # the family finds the real one; it does not decide whether the steps can be taken
    schedule_of(settings.scheduler or NEAREST[config["_class_name"]], config, settings.steps)
