"""Engines that are made on first use and kept: one folder an engine, named by the whole of what decides it."""

from __future__ import annotations

import fcntl
import glob
import hashlib
import json
import logging
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from diffclean import __version__
from diffclean.environment import cache_dir
from diffclean.errors import DiffcleanError
from diffclean.export.manifest import (
    FILE_NAME,
    OPSET,
    SUMS_NAME,
    ComponentEntry,
    EngineManifest,
    damage,
    hashes_below,
    model_hashes,
    read_manifest,
)
from diffclean.families.base import Component
from diffclean.families.hub import located
from diffclean.families.registry import Recipe, family_named
from diffclean.families.weights import with_safetensors
from diffclean.progress import NoProgress, Progress

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExportOptions:
    """What an engine is made as.

    Attributes:
        precision: what its graphs compute in: fp32, fp16 or bf16.
        image_size: side of the square that it regenerates, in pixels; None: the model's own.
    """

    precision: str = "fp32"
    image_size: int | None = None


def tool_versions() -> dict[str, str]:
    """Versions that decide what an export looks like."""
    names = ("torch", "onnx", "onnxscript", "diffusers")
    return {"diffclean": __version__, "opset": str(OPSET)} | {name: version(name) for name in names}


def cached_engine(
    recipe: Recipe, options: ExportOptions | None = None, progress: Progress | None = None, place: Path | None = None
) -> Path:
    """The engine directory of a recipe, exported if it is not there or no longer sound.

    Two callers at once: one exports, the other waits for it.

    Args:
        recipe: the model.
        options: what it is made as.
        progress: told of each component.
        place: the engine directory; None: one in the cache.

    Raises:
        DiffcleanError: the model cannot be had or does not match its hashes, or the export failed.
    """
    options = options or ExportOptions()
    source = source_of(recipe)
    identity = {name: value for name, value in source.items() if name != "path"}
    wanted = {"family": recipe.family, **identity, "tools": tool_versions(), "options": asdict(options)}
    key = hashlib.sha256(json.dumps(wanted, sort_keys=True).encode()).hexdigest()
    place = place or cache_dir() / "engines" / f"{recipe.name}-{key[:16]}"
    try:
        # First without the lock: an engine that is there is used from a cache that cannot be written to as well.
        if _unsound(place, wanted) is not None:
            with _locked(place):
                if (problem := _unsound(place, wanted)) is not None:
                    _clear(place, f"Exporting {recipe.name} again: {problem}.")
                    export_engine(recipe, place, options, source, progress)
    except OSError as error:
        raise DiffcleanError(
            f"Cannot keep the engine in {place.parent}: {error.strerror or error}.",
            "Set DIFFCLEAN_CACHE to a folder that can be written to and has room.",
        ) from error
    _note_path(place, source)
    return place


def source_of(recipe: Recipe) -> dict[str, Any]:
    """What says which model it is: a hub's name and revision, or the hashes of a directory's files.

    Raises:
        DiffcleanError: the directory is missing, or does not match its `SHA256SUMS.json`.
    """
    if recipe.hub is not None and recipe.directory is None:
        return {"hub": recipe.hub.repository, "revision": recipe.hub.revision}
    assert recipe.directory is not None
    verify_model(recipe.directory)
    return {"path": str(recipe.directory), "files": model_hashes(recipe.directory)}


def _unsound(place: Path, wanted: dict[str, Any]) -> str | None:
    """Why a kept engine cannot be used as it is, or None. Its folder's name holds a part of the key only."""
    if not (place / FILE_NAME).exists():
        return "it is incomplete"
    try:
        manifest = read_manifest(place)
    except DiffcleanError as error:
        return error.message.rstrip(".")
    made_of = {"family": manifest.family, "tools": manifest.tools, "options": manifest.options, **manifest.source}
    different = [f"its {name} differ from those asked for" for name in wanted if made_of.get(name) != wanted[name]]
    return "; ".join(different or damage(place, manifest.files)) or None


def _clear(place: Path, why: str) -> None:
    """Remove an engine, and what exports that were killed left beside it; the lock is held."""
    if place.exists():
        log.warning(why)
        shutil.rmtree(place)
    for left in place.parent.glob(f".{glob.escape(place.name)}-*"):
        shutil.rmtree(left, ignore_errors=True)


def _note_path(place: Path, source: dict[str, Any]) -> None:
    """Write down where the model lies now: it may have moved since the export, and the runtime `torch` needs it."""
    manifest = read_manifest(place)
    if "path" in source and manifest.source["path"] != source["path"]:
        with suppress(OSError):
            replace(manifest, source={**manifest.source, "path": source["path"]}).write(place)


def verify_model(directory: Path) -> None:
    """Check a model directory against its `SHA256SUMS.json`, where it has one.

    Raises:
        DiffcleanError: the directory is missing, or a file's hash differs.
    """
    if not directory.is_dir():
        raise DiffcleanError(f"There is no model directory {directory}.")
    sums = directory / SUMS_NAME
    if not sums.exists():
        return
    try:
        expected = dict(json.loads(sums.read_text()))
    except (ValueError, TypeError) as error:
        raise DiffcleanError(f"{sums} is damaged: {error}.", "Install diffclean again.") from error
    if found := damage(directory, expected):
        raise DiffcleanError(
            f"The model in {directory} was changed: {'; '.join(found)}.",
            "Install diffclean again, or point --engine at a model that you trust.",
        )


def export_engine(
    recipe: Recipe,
    place: Path,
    options: ExportOptions,
    source: dict[str, Any],
    progress: Progress | None = None,
) -> None:
    """Export a recipe's model to `place`, whole or not at all; `source` is as `source_of` gives it."""
    progress = progress or NoProgress()
    recipe = located(recipe)
    assert recipe.directory is not None
    family = family_named(recipe.family)
    directory = with_safetensors(recipe.directory, family.parts)
    log.info("Exporting engine %s in %s (once; kept in %s).", recipe.name, options.precision, place)
    model = family.load(directory, options.image_size)
    progress.begin(f"export {recipe.name}", len(model.components), "components")
    place.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{place.name}-", dir=place.parent))
    try:
        entries = {}
        components = dict(model.components)
        for name in list(components):
            # Let go one by one: a large model's fp32 weights are not needed after its graph is written.
            entries[name] = _exported(components.pop(name), temporary / name / "model.onnx", options.precision)
            progress.advance()
        EngineManifest(
            family=recipe.family,
            source={"path": str(directory), "files": model_hashes(directory), **source},
            image_size=model.image_size,
            scheduler=dict(model.scheduler),
            components=entries,
            files=hashes_below(temporary),
            tools=tool_versions(),
            options=asdict(options),
        ).write(temporary)
        temporary.chmod(0o755)
        temporary.rename(place)
    finally:
        progress.end()
        shutil.rmtree(temporary, ignore_errors=True)


def _exported(component: Component, path: Path, precision: str) -> ComponentEntry:
    from diffclean.export.onnx import onnx_from_component, parity_of_onnx, reference_outputs

    expected = reference_outputs(component)
    onnx_from_component(component, path, precision)
    return ComponentEntry(component.inputs, component.outputs, parity_of_onnx(component, path, precision, expected))


@contextmanager
def _locked(place: Path) -> Iterator[None]:
    """Hold the right to make `place`; in the cache, since a lock beside someone's engine would be litter."""
    name = hashlib.sha256(str(place.resolve()).encode()).hexdigest()[:16]
    path = cache_dir() / "locks" / f"{place.name}-{name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
