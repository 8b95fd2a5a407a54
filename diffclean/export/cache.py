"""The cache of engines, which are made on first use.

Each has one folder, named by a hash of everything that determines it.

An image or an administrator may provide engines in a second folder of the same form (`environment.prebuilt_dir`). It is
never written to: an engine that must change is copied into the cache, which takes precedence.
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
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from diffclean.data.atomic import clean_temporaries
from diffclean.data.hashes import damage, is_inside, short
from diffclean.data.json_file import read_json
from diffclean.engine.manifest import FILE_NAME, SUMS_NAME, EngineManifest, model_hashes, read_engine_manifest
from diffclean.environment import cache_dir, prebuilt_dir
from diffclean.errors import DiffcleanError
from diffclean.export.build import ExportOptions, export_engine, temporary_prefix, tool_versions
from diffclean.families.adapted import adapted, changes_of
from diffclean.families.registry import Recipe
from diffclean.progress import Progress

log = logging.getLogger(__name__)

_CACHE_HINT = "Set DIFFCLEAN_CACHE to a folder that you can write to, on a disk with enough space."
_OWN_HINT = (
    "Choose another `out`: a folder that you can write to, on a disk with enough space (in a volume, a folder inside)."
)


def cached_engine(
    recipe: Recipe,
    options: ExportOptions | None = None,
    progress: Progress | None = None,
    check: Callable[[], None] | None = None,
) -> Path:
    """The engine directory of a recipe in the cache; see `ensured_engine`."""
    return ensured_engine(recipe, options, progress, check=check)[0]


def ensured_engine(
    recipe: Recipe,
    options: ExportOptions | None = None,
    progress: Progress | None = None,
    place: Path | None = None,
    overwrite: bool = False,
    stop: threading.Event | None = None,
    check: Callable[[], None] | None = None,
) -> tuple[Path, str | None]:
    """The engine directory of a recipe, which is exported if it does not exist or is no longer sound.

    If two callers need it at once, one exports and the other waits.

    Args:
        recipe: the model.
        options: the options of the export.
        progress: is advanced for each component.
        place: the engine directory; None stands for a prebuilt one, or one in the cache.
        overwrite: whether another engine in `place` may be replaced.
        stop: when set, an export ends before the next component, and nothing of it is kept.
        check: is called before an export, which takes minutes; what it raises is raised.

    Returns:
        The directory, and the reason why it was exported just now; None if it existed already.

    Raises:
        Interrupted: `stop` was set.
        DiffcleanError: the model cannot be obtained or does not match its hashes, the export failed, or `place` holds
            something else.
    """
    options = options or ExportOptions()
    source = source_of(recipe)
    wanted = identity_of(recipe, options, source)
    own, place = place is not None, (place or place_of(recipe, wanted))
    place = place.resolve() if place.is_symlink() else place
    try:
        # The first check needs no lock, so that an existing engine can be used from a read-only cache.
        if (problem := unsound(place, wanted)) is not None:
            with locked(place):
                if (problem := unsound(place, wanted)) is not None:
                    if check is not None:
                        check()
                    if own:
                        check_replaceable(place, wanted, overwrite)
                    _clear(place, f"Exporting {recipe.name} again: {problem}.")
                    export_engine(recipe, place, options, source, progress, stop)
    except OSError as error:
        raise DiffcleanError(
            f"Cannot write the engine to {place if own else place.parent}: {error.strerror or error}.",
            _OWN_HINT if own else _CACHE_HINT,
        ) from error
    return _noted(place, source), problem


def source_of(recipe: Recipe) -> dict[str, Any]:
    """The identity of a model: a hub's name and revision, or the hashes of a directory's files.

    Raises:
        DiffcleanError: the directory is missing, does not match its `SHA256SUMS.json`, or has weights that are refused.
    """
    changes = changes_of(recipe)
    changed = {"changes": changes} if changes else {}
    if recipe.hub is not None and recipe.directory is None:
        extras = {"parts": {name: str(part) for name, part in recipe.extras.items()}} if recipe.extras else {}
        return {"hub": recipe.hub.repository, "revision": recipe.hub.revision, **extras, **changed}
    assert recipe.directory is not None
    verify_model(recipe.directory)
    # Pickled weights and changes are included: the hash is that of the safetensors that were made from them.
    directory = adapted(recipe)
    return {"path": str(directory), "files": model_hashes(directory), **changed}


def identity_of(recipe: Recipe, options: ExportOptions, source: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that determines an engine."""
    identity = {name: value for name, value in source.items() if name != "path"}
    return {"family": recipe.family, **identity, "tools": tool_versions(), "options": options.as_json()}


def place_of(recipe: Recipe, wanted: Mapping[str, Any]) -> Path:
    """The directory of an engine: its place in the cache, or a prebuilt engine if the cache has none."""
    place, folder = kept_place(recipe, wanted), prebuilt_dir()
    if folder is None or (place / FILE_NAME).exists():
        return place
    ready = folder / "engines" / place.name
    if (problem := unsound(ready, wanted)) is None:
        return ready
    if ready.exists():
        log.warning("The engine in %s is not used: %s.", ready, problem)
    return place


def writable(place: Path) -> Path:
    """An engine directory that can be added to: `place` itself, or a copy in the cache if the engine is prebuilt.

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
    """The place of an engine in the cache."""
    key = hashlib.sha256(json.dumps(wanted, sort_keys=True).encode()).hexdigest()
    return cache_dir() / "engines" / f"{recipe.name}-{key[:16]}"


def unsound(place: Path, wanted: Mapping[str, Any]) -> str | None:
    """Why an existing engine cannot be used as it is, or None.

    The content is checked, since the folder's name is only a part of the key.
    """
    if not (place / FILE_NAME).exists():
        return "it is incomplete" if place.exists() else "it is not there"
    try:
        manifest = read_engine_manifest(place)
        if found := _differences(manifest, wanted) or manifest.changed(place):
            return "; ".join(found)
        manifest.check_graphs(place)
    except DiffcleanError as error:
        return error.message.rstrip(".")
    return None


def _differences(manifest: EngineManifest, wanted: Mapping[str, Any]) -> list[str]:
    """The differences between an existing engine and the wanted one, one phrase for each kind."""
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
            found.append(f"its {name} differ from the wanted ones ({'; '.join([*parts, *more])})")
        else:
            found.append(f"its {name} is {short(have)}, wanted is {short(want)}")
    return found


def check_replaceable(place: Path, wanted: Mapping[str, Any], overwrite: bool) -> None:
    """Refuse to replace a folder that is not an engine, or another engine unless `overwrite` is set.

    Raises:
        DiffcleanError: `place` holds something else, or another engine.
    """
    if not place.exists() or (place.is_dir() and not any(place.iterdir())):
        return
    if not (place / FILE_NAME).is_file():
        kind = "a folder that holds something else" if place.is_dir() else "a file"
        raise DiffcleanError(f"{place} is {kind}, not an engine.", "Choose another folder with `out`.")
    problem, hint = "", "Choose another folder with `out`, or give `overwrite` to replace the engine."
    try:
        problem = "; ".join(_differences(read_engine_manifest(place), wanted))
    except DiffcleanError as error:
        problem = error.message.rstrip(".")
    if problem and not overwrite:
        raise DiffcleanError(f"{place} holds another engine: {problem}.", hint)


def _clear(place: Path, why: str) -> None:
    """Remove an engine, and what killed exports have left beside it. The caller holds the lock."""
    if place.exists():
        if any(place.iterdir()):
            log.warning(why)
        shutil.rmtree(place)
    for left in place.parent.glob(f"{glob.escape(temporary_prefix(place))}*"):
        shutil.rmtree(left, ignore_errors=True)


def _noted(place: Path, source: Mapping[str, Any]) -> Path:
    """Record the current path of the model. It may have moved since the export, and the runtime `torch` needs it."""
    if "path" not in source or read_engine_manifest(place).source["path"] == source["path"]:
        return place
    with suppress(OSError, DiffcleanError):
        place = writable(place)
        with locked(place):
            manifest = read_engine_manifest(place)
            replace(manifest, source={**manifest.source, "path": source["path"]}).write(place)
    return place


def verify_model(directory: Path) -> None:
    """Check a model directory against its `SHA256SUMS.json`, if it has one.

    Raises:
        DiffcleanError: the directory is missing, or the hash of a file differs.
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
    """Hold the lock for changes to an engine directory, which only one process has at a time; others wait.

    The lock is in the cache, so that no file of ours is left beside an engine of the user.

    Raises:
        DiffcleanError: the cache cannot be written to.
    """
    name = hashlib.sha256(str(place.resolve()).encode()).hexdigest()[:16]
    path = cache_dir() / "locks" / f"{place.name}-{name}.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("w")
    except OSError as error:
        raise DiffcleanError(f"Cannot lock {path}: {error.strerror or error}.", _CACHE_HINT) from error
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        clean_temporaries(place)
        yield
