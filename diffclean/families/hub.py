"""Finds a model's files: in a local directory, or on a hub, from which they are fetched once."""

from __future__ import annotations

import hashlib
import logging
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path

from diffclean.errors import DiffcleanError
from diffclean.families.registry import (
    HubModel,
    HubPart,
    Recipe,
    family_named,
    family_of,
    load_recipe,
    unlike,
)
from diffclean.families.weights import NOT_CONFIGURATION, weights_among

log = logging.getLogger(__name__)

_INDEX = "model_index.json"
_TIMEOUT_S = 10.0
_LOCAL_COPY = (
    "If you have a copy of the model's files, give its folder in place of the name: "
    "diffclean export path/to/model, or --engine path/to/model."
)


def located(recipe: Recipe) -> Recipe:
    """The recipe with its model directory. If the recipe names only a hub's model, it also gets a family and defaults.

    Raises:
        DiffcleanError: the hub cannot be reached or has no such model, the hash of a file differs, or no family runs
            the model.
    """
    if recipe.directory is not None or recipe.hub is None:
        return recipe
    if recipe.family:
        parts = family_named(recipe.family).parts
        own = tuple(pattern for pattern in parts if pattern.split("/")[0] not in recipe.extras)
        directory = fetched(recipe.hub, own)
        if recipe.extras:
            others = {folder: fetched_part(part) for folder, part in recipe.extras.items()}
            directory = composed(recipe.name, directory, own, others)
        return replace(recipe, directory=directory)
    family = family_of(fetched(recipe.hub, ()))
    directory = fetched(recipe.hub, family_named(family).parts)
    return replace(unlike(load_recipe(family), recipe.name, directory, {"scheduler": ""}), hub=recipe.hub)


def fetched(model: HubModel, parts: tuple[str, ...]) -> Path:
    """Fetch a hub's model and return the local copy: `model_index.json` and, of the `parts`, the files that are read.

    If the hub cannot be reached, a copy that was fetched before is used.

    Raises:
        DiffcleanError: as for `located`.
    """
    from diffclean.data.hashes import damage

    place = _from_hub(model, lambda names: files_to_fetch(names, parts), lambda: _kept(model, parts))
    if found := damage(place, dict(model.sha256) if parts else {}):
        raise DiffcleanError(
            f"{model} is not the model that the recipe was written for: {'; '.join(found)}.",
            f"Delete {place} and try again. If the message comes back, the hub's copy was changed: do not use it.",
        )
    return place


def fetched_part(part: HubPart) -> Path:
    """Fetch a folder or a file of a hub's model and return the local copy.

    Raises:
        DiffcleanError: the hub cannot be reached, or the model has no such part.
    """
    whole = _from_hub(part.model, lambda names: files_of_part(names, part.path), lambda: _kept_part(part))
    if not (whole / part.path).exists():
        raise DiffcleanError(
            f"{part.model} has no {part.path}.",
            "The model was changed on its hub. Use a copy of its files from before, or a revision that has it.",
        )
    return whole / part.path


def files_of_part(names: Iterable[str], path: str) -> list[str]:
    """Choose the files of a part of a model that are read, see `files_to_fetch`; none if there is no such part.

    Args:
        names: the paths of all files of the model.
        path: the path of a folder, or of a file.
    """
    names = list(names)
    if path in names:
        return [path]
    return [f"{path}/{file}" for file in _read_of([name.rpartition("/")[2] for name in names if _parent(name) == path])]


def _parent(name: str) -> str:
    return name.rpartition("/")[0]


def _read_of(files: list[str]) -> list[str]:
    """Of the files in a folder, those that are read: the configurations, and one form of the weights."""
    weights = weights_among(files)
    kept = [file for file in files if not file.endswith(NOT_CONFIGURATION)] + list(weights.files if weights else ())
    return list(dict.fromkeys(kept))


def composed(name: str, directory: Path, parts: tuple[str, ...], others: Mapping[str, Path]) -> Path:
    """A folder in the cache that holds links to a model's files and to parts from other places.

    Args:
        name: begins the name of the folder.
        directory: the model.
        parts: glob patterns of the model's own parts.
        others: folders to add, each with a folder, or a file that it shall hold.
    """
    from diffclean.data.atomic import temporary_folder
    from diffclean.environment import cache_dir

    links = {Path(_INDEX): directory / _INDEX}
    for folder in sorted({pattern.split("/")[0] for pattern in parts}):
        links |= {Path(folder, file.name): file for file in (directory / folder).glob("*") if file.is_file()}
    for folder, place in others.items():
        files = [place] if place.is_file() else [file for file in place.glob("*") if file.is_file()]
        links |= {Path(folder, file.name): file for file in files}
    listing = "\n".join(f"{path} {links[path].resolve()}" for path in sorted(links))
    composition = cache_dir() / "models" / f"{name}-{hashlib.sha256(listing.encode()).hexdigest()[:16]}"
    if not all((composition / path).is_file() for path in links):  # a hub's cache may have been emptied meanwhile
        composition.parent.mkdir(parents=True, exist_ok=True)
        with temporary_folder(composition) as temporary:
            for path, file in links.items():
                (temporary / path).parent.mkdir(exist_ok=True)
                (temporary / path).symlink_to(file.resolve())
            shutil.rmtree(composition, ignore_errors=True)
            temporary.rename(composition)
    return composition


def files_to_fetch(names: Iterable[str], parts: tuple[str, ...]) -> list[str]:
    """Choose the files of a model that are read: configurations, vocabularies, and one form of the weights.

    A hub often has the same weights four times: in fp32 and fp16, as safetensors and as a pickle.

    Args:
        names: the paths of all files of the model.
        parts: glob patterns, see `Family.parts`.

    Returns:
        The paths to fetch.
    """
    folders: dict[str, list[str]] = {}
    for name in names:
        folder, _, file = name.rpartition("/")
        if "/" not in folder and any(fnmatch(name, pattern) for pattern in parts):
            folders.setdefault(folder, []).append(file)
    wanted = [_INDEX]
    for folder, files in folders.items():
        wanted += [f"{folder}/{file}" for file in _read_of(files)]
    return wanted


def _from_hub(model: HubModel, choose: Callable[[Iterable[str]], list[str]], kept: Callable[[], Path | None]) -> Path:
    """Fetch the files that `choose` takes of all names; `kept` finds a copy that was fetched before."""
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError
    from huggingface_hub.utils import disable_progress_bars

    if not sys.stderr.isatty():
        disable_progress_bars()
    page = f"https://huggingface.co/{model.repository}"
    try:
        # This is one request without retries; the library's own listing would retry for half a minute or for ever.
        listing = HfApi().model_info(model.repository, revision=model.revision, timeout=_TIMEOUT_S).siblings or []
        wanted = choose([file.rfilename for file in listing])
        log.info("Fetching %s from its hub (once).", model)
        return Path(snapshot_download(model.repository, revision=model.revision, allow_patterns=wanted))
    except RevisionNotFoundError as error:
        raise DiffcleanError(f"{model.repository} has no revision {model.revision}.", f"See {page}/commits.") from error
    except GatedRepoError as error:
        raise DiffcleanError(
            f"{model} is available only to those who accept its terms.",
            f"Accept them on {page}, then type: hf auth login",
        ) from error
    except RepositoryNotFoundError as error:
        raise DiffcleanError(
            f"There is no folder {model.repository} here, and no model of that name on the hub that you have access "
            "to.",
            f"Check the spelling. If it is a private model, type: hf auth login. {_LOCAL_COPY}",
        ) from error
    except Exception as error:  # the library and those below it raise many kinds of errors
        if (place := kept()) is not None:
            log.info("The hub cannot be reached; using the copy of %s that was fetched before.", model)
            return place
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise DiffcleanError(
            f"{model} cannot be fetched from its hub: {reason}.",
            f"There is no folder of that name here either. {_LOCAL_COPY}",
        ) from error


def _kept(model: HubModel, parts: tuple[str, ...]) -> Path | None:
    """A complete copy that was fetched before, or None."""
    from huggingface_hub import snapshot_download

    try:
        place = Path(
            snapshot_download(model.repository, revision=model.revision, allow_patterns=[_INDEX], local_files_only=True)
        )
    except Exception:  # the library has several errors for a copy that is not there
        return None
    folders = [place / pattern.split("/")[0] for pattern in parts]
    return place if (place / _INDEX).is_file() and all(map(_whole, folders)) else None


def _kept_part(part: HubPart) -> Path | None:
    """The copy of a model in which a part is complete that was fetched before, or None."""
    from huggingface_hub import snapshot_download

    model = part.model
    asked = [part.path, f"{part.path}/config.json"]  # the library misses every file that matches and is not there
    try:
        place = Path(
            snapshot_download(model.repository, revision=model.revision, allow_patterns=asked, local_files_only=True)
        )
    except Exception:  # the library has several errors for a copy that is not there
        return None
    return place if (place / part.path).is_file() or _whole(place / part.path) else None


def _whole(folder: Path) -> bool:
    """Whether a part is complete: a part with the configuration of a network must have its weights too."""
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    return bool(names) and ("config.json" not in names or weights_among(names) is not None)
