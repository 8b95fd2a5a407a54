"""Exports a model to an engine directory with its ONNX graphs, which is written whole or not at all."""

from __future__ import annotations

import copy
import logging
import shutil
import tempfile
import threading
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from diffclean import __version__
from diffclean.data.hashes import hashes_below
from diffclean.engine.manifest import GRAPH_NAME, OPSET, ComponentEntry, EngineManifest, model_hashes
from diffclean.errors import Interrupted
from diffclean.export.eight_bit import QUANTIZED
from diffclean.families.adapted import adapted
from diffclean.families.base import Component
from diffclean.families.hub import located
from diffclean.families.registry import Recipe, family_named, load_model
from diffclean.progress import NoProgress, Progress

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExportOptions:
    """The options of an export.

    Attributes:
        precision: the format that the graphs compute in: fp32, fp16 or bf16.
        image_size: the side of the square that the engine regenerates, in pixels; None stands for the model's own.
        weights: how the large weights of the denoiser are stored: int8 or fp8; None stands for the precision.
    """

    precision: str = "fp32"
    image_size: int | None = None
    weights: str | None = None

    def as_json(self) -> dict[str, Any]:
        """The options as they are recorded. Engines of earlier versions, which are good, do not name `weights`."""
        options = asdict(self)
        if self.weights is None:
            del options["weights"]
        return options


def tool_versions() -> dict[str, str]:
    """The versions of the tools that determine the result of an export."""
    names = ("torch", "onnx", "onnxscript", "diffusers")
    return {"diffclean": __version__, "opset": str(OPSET)} | {name: version(name) for name in names}


def temporary_prefix(place: Path) -> str:
    """The prefix of the temporary folders beside an engine, in which it is made."""
    return f".{place.name}.export-"


def export_engine(
    recipe: Recipe,
    place: Path,
    options: ExportOptions,
    source: dict[str, Any],
    progress: Progress | None = None,
    stop: threading.Event | None = None,
) -> None:
    """Export a recipe's model to `place`, whole or not at all.

    Args:
        recipe: the model.
        place: the engine directory; it must not exist, or be empty.
        options: the options of the export.
        source: the identity of the model, as `cache.source_of` returns it.
        progress: is advanced for each component.
        stop: when set, the export ends before the next component.

    Raises:
        Interrupted: `stop` was set.
        DiffcleanError: the model cannot be obtained, torch cannot export it, or a graph differs from torch.
    """
    progress = progress or NoProgress()
    recipe = located(recipe)
    assert recipe.directory is not None
    family = family_named(recipe.family)
    directory = adapted(recipe)
    log.info("Exporting engine %s in %s (once; kept in %s).", recipe.name, options.precision, place)
    model = load_model(family, directory, options.image_size)
    size, scheduler, components = model.image_size, dict(model.scheduler), dict(model.components)
    # From here on only `components` refers to the modules; each is released when its graph is written.
    del model
    progress.begin(f"export {recipe.name}", len(components), "components")
    place.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=temporary_prefix(place), dir=place.parent))
    try:
        entries = {}
        for name in list(components):
            if stop is not None and stop.is_set():
                raise Interrupted(f"Stopped before {name} of {recipe.name}. Nothing was kept.")
            graph = temporary / name / GRAPH_NAME
            stored = options.weights if name == QUANTIZED else None
            entries[name] = _exported(components.pop(name), graph, options.precision, stored, recipe.name)
            progress.advance()
        EngineManifest(
            family=recipe.family,
            source={"path": str(directory), "files": model_hashes(directory), **source},
            image_size=size,
            scheduler=scheduler,
            components=entries,
            files=hashes_below(temporary),
            tools=tool_versions(),
            options=options.as_json(),
        ).write(temporary)
        temporary.chmod(0o755)
        temporary.rename(place)
    finally:
        progress.end()
        shutil.rmtree(temporary, ignore_errors=True)


def _exported(component: Component, path: Path, precision: str, weights: str | None, model: str) -> ComponentEntry:
    import torch

    from diffclean.export.onnx import (
        OverflowInHalfError,
        checked_reference,
        onnx_from_component,
        parity_batch,
        parity_of_onnx,
    )

    batch, name = parity_batch(component), path.parent.name
    expected = checked_reference(component, batch, name, model)
    # The export leaves the module in half precision. If that may not be enough, a copy is kept to fall back to.
    spare = copy.deepcopy(component.module) if component.upcast and precision == "fp16" else None
    onnx_from_component(component, path, precision, weights)
    # The check needs only the signature; keeping a large module as well as the graph's weights would waste memory.
    signature = Component(torch.nn.Identity(), component.inputs, component.outputs)
    try:
        parity = parity_of_onnx(signature, path, precision, expected, batch, weights)
    except OverflowInHalfError as error:
        if spare is None:
            raise
        log.warning("%s The graph of %s is kept in fp32.", error.message, name)
        for file in path.parent.iterdir():
            file.unlink()
        onnx_from_component(Component(spare, component.inputs, component.outputs), path, "fp32", weights)
        parity = parity_of_onnx(signature, path, "fp32", expected, batch, weights)
    return ComponentEntry(component.inputs, component.outputs, parity)
