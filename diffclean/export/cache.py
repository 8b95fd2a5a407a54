"""Engines that are made on first use and kept: one folder an engine, named by the whole of what decides it.

An image or an administrator may bring engines along in a second place of the same form (`environment.prebuilt_dir`). It
is never written to: what has to change is copied into the cache, and there it comes first.
"""

from __future__ import annotations

import fcntl
import glob
import hashlib
import json
import logging
import shutil
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from diffclean.data.atomic import clean_temporaries
from diffclean.data.hashes import damage, is_inside, short
from diffclean.data.json_file import read_json
from diffclean.engine.manifest import FILE_NAME, SUMS_NAME, EngineManifest, model_hashes, read_engine_manifest
from diffclean.environment import cache_dir, prebuilt_dir
from diffclean.errors import DiffcleanError
from diffclean.export.build import ExportOptions, export_engine, temporary_prefix, tool_versions
from diffclean.families.registry import Recipe, family_named
from diffclean.families.weights import with_safetensors
from diffclean.progress import Progress

log = logging.getLogger(__name__)

_CACHE_HINT = "Set DIFFCLEAN_CACHE to a folder that can be written to and has room."
_OWN_HINT = "Choose another `out`: a folder that can be written to and has room; for a volume, a folder inside it."


def cached_engine(recipe: Recipe, options: ExportOptions | None = None, progress: Progress | None = None) -> Path:
    """The engine directory of a recipe in the cache; see `ensured_engine`."""
    return ensured_engine(recipe, options, progress)[0]


def ensured_engine(
    recipe: Recipe,
    options: ExportOptions | None = None,
    progress: Progress | None = None,
    place: Path | None = None,
    overwrite: bool = False,
    stop: threading.Event | None = None,
) -> tuple[Path, str | None]:
    """The engine directory of a recipe, exported if it is not there or no longer sound.

    Two callers at once: one exports, the other waits for it.

    Args:
        recipe: the model.
        options: what it is made as.
        progress: told of each component.
        place: the engine directory; None: one that was made beforehand, or one in the cache.
        overwrite: whether another engine in `place` is replaced.
        stop: when set, an export ends before the next component, and nothing is kept of it.

    Returns:
        The directory, and why it was exported just now; None: it was there.

    Raises:
        Interrupted: `stop` was set.
        DiffcleanError: the model cannot be had or does not match its hashes, the export failed, or `place` holds
            something else.
    """
    options = options or ExportOptions()
    source = source_of(recipe)
    wanted = identity_of(recipe, options, source)
    own, place = place is not None, (place or place_of(recipe, wanted))
    place = place.resolve() if place.is_symlink() else place
    try:
        # First without the lock: an engine that is there is used from a cache that cannot be written to as well.
        if (problem := unsound(place, wanted)) is not None:
            with locked(place):
                if (problem := unsound(place, wanted)) is not None:
                    if own:
                        check_replaceable(place, wanted, overwrite)
                    _clear(place, f"Exporting {recipe.name} again: {problem}.")
                    export_engine(recipe, place, options, source, progress, stop)
    except OSError as error:
        raise DiffcleanError(
            f"Cannot keep the engine in {place if own else place.parent}: {error.strerror or error}.",
            _OWN_HINT if own else _CACHE_HINT,
        ) from error
    return _noted(place, source), problem


def source_of(recipe: Recipe) -> dict[str, Any]:
    """What says which model it is: a hub's name and revision, or the hashes of a directory's files.

    Raises:
        DiffcleanError: the directory is missing, does not match its `SHA256SUMS.json`, or has weights that are refused.
    """
    if recipe.hub is not None and recipe.directory is None:
        return {"hub": recipe.hub.repository, "revision": recipe.hub.revision}
    assert recipe.directory is not None
    verify_model(recipe.directory)
    # Pickled weights count too: what is hashed is what was read from them.
    directory = with_safetensors(recipe.directory, family_named(recipe.family).parts)
    return {"path": str(directory), "files": model_hashes(directory)}


def identity_of(recipe: Recipe, options: ExportOptions, source: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that decides an engine."""
    identity = {name: value for name, value in source.items() if name != "path"}
    return {"family": recipe.family, **identity, "tools": tool_versions(), "options": asdict(options)}


def place_of(recipe: Recipe, wanted: Mapping[str, Any]) -> Path:
    """Where an engine is: its place in the cache, or one that was made beforehand where the cache has none."""
    place, folder = kept_place(recipe, wanted), prebuilt_dir()
    if folder is None or (place / FILE_NAME).exists():
        return place
    ready = folder / "engines" / place.name
    if (problem := unsound(ready, wanted)) is None:
        return ready
    if ready.exists():
        log.warning("The engine in %s is passed over: %s.", ready, problem)
    return place


def writable(place: Path) -> Path:
    """An engine directory that can be added to: `place`, or of one that was made beforehand a copy in the cache.

    Raises:
        DiffcleanError: the cache cannot be written to.
    """
    folder = prebuilt_dir()
    if folder is None or folder.resolve() not in place.resolve().parents:
        return place
    copy = cache_dir() / "engines" / place.name
    manifest = read_engine_manifest(place)
    with locked(copy):
        if (copy / FILE_NAME).exists() and not manifest.changed(copy):
            return copy
        _clear(copy, f"Copying {place} again: {copy} was changed.")
        try:
            copy.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=temporary_prefix(copy), dir=copy.parent) as temporary:
                shutil.copytree(place, Path(temporary) / "engine", copy_function=shutil.copyfile)
                (Path(temporary) / "engine").rename(copy)
        except OSError as error:
            raise DiffcleanError(f"Cannot copy {place} to {copy}: {error.strerror or error}.", _CACHE_HINT) from error
    return copy


def kept_place(recipe: Recipe, wanted: Mapping[str, Any]) -> Path:
    """Where the cache keeps an engine."""
    key = hashlib.sha256(json.dumps(wanted, sort_keys=True).encode()).hexdigest()
    return cache_dir() / "engines" / f"{recipe.name}-{key[:16]}"


def unsound(place: Path, wanted: Mapping[str, Any]) -> str | None:
    """Why a kept engine cannot be used as it is, or None. Its folder's name holds a part of the key only."""
    if not (place / FILE_NAME).exists():
        return "it is incomplete" if place.exists() else "it is not there"
    try:
        manifest = read_engine_manifest(place)
    except DiffcleanError as error:
        return error.message.rstrip(".")
    return "; ".join(_differences(manifest, wanted) or manifest.changed(place)) or None


def _differences(manifest: EngineManifest, wanted: Mapping[str, Any]) -> list[str]:
    """What an engine is and the wanted one is not, a phrase a kind."""
    made_of = {"family": manifest.family, "tools": manifest.tools, "options": manifest.options, **manifest.source}
    found = []
    for name in wanted:
        have, want = made_of.get(name), wanted[name]
        if have == want:
            continue
        if isinstance(have, dict) and isinstance(want, dict):
            keys = [key for key in sorted({*have, *want}) if have.get(key) != want.get(key)]
            parts = [f"{key} {short(have.get(key))}, wanted is {short(want.get(key))}" for key in keys[:3]]
            more = [f"and {len(keys) - 3} more"] if len(keys) > 3 else []
            found.append(f"its {name} differ from those asked for ({'; '.join([*parts, *more])})")
        else:
            found.append(f"its {name} is {short(have)}, wanted is {short(want)}")
    return found


def check_replaceable(place: Path, wanted: Mapping[str, Any], overwrite: bool) -> None:
    """Refuse a folder of somebody's: only what is an engine is ever replaced, and another engine only when told to.

    Raises:
        DiffcleanError: `place` holds something else, or another engine.
    """
    if not place.exists() or (place.is_dir() and not any(place.iterdir())):
        return
    if not (place / FILE_NAME).is_file():
        kind = "a folder that holds something else" if place.is_dir() else "no folder"
        raise DiffcleanError(f"{place} is {kind}, not an engine.", "Choose another folder with `out`.")
    problem, hint = "", "Choose another folder with `out`, or replace it: `overwrite`."
    try:
        problem = "; ".join(_differences(read_engine_manifest(place), wanted))
    except DiffcleanError as error:
        problem = error.message.rstrip(".")
    if problem and not overwrite:
        raise DiffcleanError(f"{place} holds another engine: {problem}.", hint)


def _clear(place: Path, why: str) -> None:
    """Remove an engine, and what exports that were killed left beside it; the lock is held."""
    if place.exists():
        if any(place.iterdir()):
            log.warning(why)
        shutil.rmtree(place)
    for left in place.parent.glob(f"{glob.escape(temporary_prefix(place))}*"):
        shutil.rmtree(left, ignore_errors=True)


def _noted(place: Path, source: Mapping[str, Any]) -> Path:
    """Write down where the model lies now: it may have moved since the export, and the runtime `torch` needs it."""
    if "path" not in source or read_engine_manifest(place).source["path"] == source["path"]:
        return place
    with suppress(OSError, DiffcleanError):
        place = writable(place)
        with locked(place):
            manifest = read_engine_manifest(place)
            replace(manifest, source={**manifest.source, "path": source["path"]}).write(place)
    return place


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
    expected = read_json(sums)
    if not isinstance(expected, dict) or not all(
        is_inside(name) and isinstance(digest, str) for name, digest in expected.items()
    ):
        raise DiffcleanError(f"{sums} is damaged: expected files and their hashes.", "Install diffclean again.")
    if found := damage(directory, expected):
        raise DiffcleanError(
            f"The model in {directory} was changed: {'; '.join(found)}.",
            "Install diffclean again, or point `engine` at a model that you trust.",
        )


@contextmanager
def locked(place: Path) -> Iterator[None]:
    """Hold the right to change an engine directory: one at a time, the others wait.

    The lock lies in the cache, since beside someone's engine it would be litter.

    Raises:
        DiffcleanError: the cache cannot be written to.
    """
    name = hashlib.sha256(str(place.resolve()).encode()).hexdigest()[:16]
    path = cache_dir() / "locks" / f"{place.name}-{name}.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("w")
    except OSError as error:
        raise DiffcleanError(f"Cannot keep the lock {path}: {error.strerror or error}.", _CACHE_HINT) from error
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        clean_temporaries(place)
        yield
