"""Engines that are made on first use and kept: one folder an engine, named by the whole of what decides it."""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from diffclean import __version__
from diffclean.errors import DiffcleanError
from diffclean.export.manifest import (
    FILE_NAME,
    ComponentEntry,
    EngineManifest,
    damage,
    hashes_below,
    read_manifest,
)
from diffclean.export.onnx import OPSET, onnx_from_component, parity_of_onnx
from diffclean.families.registry import Recipe, family_named
from diffclean.progress import NoProgress, Progress

log = logging.getLogger(__name__)


def cache_root() -> Path:
    """`DIFFCLEAN_CACHE`, else `$XDG_CACHE_HOME/diffclean`, else `~/.cache/diffclean`."""
    if chosen := os.environ.get("DIFFCLEAN_CACHE"):
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "diffclean"


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
    source = {"path": str(recipe.directory), "files": hashes_below(recipe.directory)}
    wanted = {"family": recipe.family, "files": source["files"], "tools": tool_versions()}
    key = hashlib.sha256(json.dumps(wanted, sort_keys=True).encode()).hexdigest()
    place = cache_root() / "engines" / f"{recipe.name}-{key[:16]}"
    try:
        with _locked(place.with_suffix(".lock")):
            if (problem := _unsound(place)) is not None:
                if place.exists():
                    log.warning("Exporting %s again: %s.", recipe.name, problem)
                    shutil.rmtree(place)
                export_engine(recipe, place, source, progress)
    except OSError as error:
        raise DiffcleanError(
            f"Cannot keep the engine in {place.parent}: {error.strerror}.",
            "Set DIFFCLEAN_CACHE to a folder that can be written to and has room.",
        ) from error
    return place


def _unsound(place: Path) -> str | None:
    """Why a kept engine cannot be used as it is, or None."""
    if not (place / FILE_NAME).exists():
        return "it is incomplete"
    try:
        return "; ".join(damage(place, read_manifest(place).files)) or None
    except DiffcleanError as error:
        return error.message


def verify_model(directory: Path) -> None:
    """Check a model directory against its `SHA256SUMS.json`, where it has one.

    Raises:
        DiffcleanError: the directory is missing, or a file's hash differs.
    """
    if not directory.is_dir():
        raise DiffcleanError(f"There is no model directory {directory}.")
    sums = directory / "SHA256SUMS.json"
    if sums.exists() and (found := damage(directory, json.loads(sums.read_text()))):
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
