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
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from diffclean import __version__
from diffclean.environment import cache_dir
from diffclean.errors import DiffcleanError
from diffclean.export.manifest import (
    FILE_NAME,
    SUMS_NAME,
    ComponentEntry,
    EngineManifest,
    damage,
    hashes_below,
    model_hashes,
    read_manifest,
)
from diffclean.export.onnx import OPSET, onnx_from_component, parity_of_onnx
from diffclean.families.registry import Recipe, family_named
from diffclean.progress import NoProgress, Progress

log = logging.getLogger(__name__)


def tool_versions() -> dict[str, str]:
    """Versions that decide what an export looks like."""
    return {"diffclean": __version__, "opset": str(OPSET)} | {n: version(n) for n in ("torch", "onnx", "onnxscript")}


def cached_engine(recipe: Recipe, progress: Progress | None = None) -> Path:
    """The engine directory of a recipe, exported if it is not there or no longer sound.

    Two callers at once: one exports, the other waits for it.

    Raises:
        DiffcleanError: the model's files do not match its `SHA256SUMS.json`, or the export failed.
    """
    verify_model(recipe.directory)
    source = {"path": str(recipe.directory), "files": model_hashes(recipe.directory)}
    wanted = {"family": recipe.family, "files": source["files"], "tools": tool_versions()}
    key = hashlib.sha256(json.dumps(wanted, sort_keys=True).encode()).hexdigest()
    place = cache_dir() / "engines" / f"{recipe.name}-{key[:16]}"
    try:
        # First without the lock: an engine that is there is used from a cache that cannot be written to as well.
        if _unsound(place, wanted) is not None:
            with _locked(place.with_name(f"{place.name}.lock")):
                if (problem := _unsound(place, wanted)) is not None:
                    _clear(place, f"Exporting {recipe.name} again: {problem}.")
                    export_engine(recipe, place, source, progress)
    except OSError as error:
        raise DiffcleanError(
            f"Cannot keep the engine in {place.parent}: {error.strerror or error}.",
            "Set DIFFCLEAN_CACHE to a folder that can be written to and has room.",
        ) from error
    _note_path(place, source)
    return place


def _unsound(place: Path, wanted: dict[str, Any]) -> str | None:
    """Why a kept engine cannot be used as it is, or None. Its folder's name holds a part of the key only."""
    if not (place / FILE_NAME).exists():
        return "it is incomplete"
    try:
        manifest = read_manifest(place)
    except DiffcleanError as error:
        return error.message.rstrip(".")
    made_of = {"family": manifest.family, "files": manifest.source.get("files"), "tools": manifest.tools}
    different = [f"its {name} differ from those asked for" for name in wanted if made_of[name] != wanted[name]]
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
    if manifest.source["path"] != source["path"]:
        with suppress(OSError):
            replace(manifest, source=source).write(place)


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


def export_engine(recipe: Recipe, place: Path, source: dict[str, Any], progress: Progress | None = None) -> None:
    """Export a recipe's model to `place`, whole or not at all."""
    progress = progress or NoProgress()
    family = family_named(recipe.family)
    log.info("Exporting engine %s (once; kept in %s).", recipe.name, place)
    model = family.load(recipe.directory)
    progress.begin(f"export {recipe.name}", len(model.components), "components")
    temporary = Path(tempfile.mkdtemp(prefix=f".{place.name}-", dir=place.parent))
    try:
        entries = {}
        for name, component in model.components.items():
            path = temporary / name / "model.onnx"
            onnx_from_component(component, path)
            entries[name] = ComponentEntry(component.inputs, component.outputs, parity_of_onnx(component, path))
            progress.advance()
        files = hashes_below(temporary)
        scheduler = dict(model.scheduler)
        EngineManifest(recipe.family, source, model.image_size, scheduler, entries, files, tool_versions()).write(
            temporary
        )
        temporary.chmod(0o755)
        temporary.rename(place)
    finally:
        progress.end()
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
