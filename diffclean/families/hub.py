"""Finds a model's files: in a local directory, or on a hub, from which they are fetched once."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path

from diffclean.errors import DiffcleanError
from diffclean.families.registry import (
    HubModel,
    Recipe,
    family_named,
    family_of,
    load_recipe,
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
        return replace(recipe, directory=fetched(recipe.hub, family_named(recipe.family).parts))
    family = family_of(fetched(recipe.hub, ()))
    like = load_recipe(family)
    directory = fetched(recipe.hub, family_named(family).parts)
    defaults = {**like.defaults, "scheduler": ""}
    return replace(recipe, family=family, directory=directory, defaults=defaults, license_note=like.license_note)


def fetched(model: HubModel, parts: tuple[str, ...]) -> Path:
    """Fetch a hub's model and return the local copy: `model_index.json` and, of the `parts`, the files that are read.

    If the hub cannot be reached, a copy that was fetched before is used.

    Raises:
        DiffcleanError: as for `located`.
    """
    from diffclean.data.hashes import damage

    place = _from_hub(model, parts)
    if found := damage(place, dict(model.sha256) if parts else {}):
        raise DiffcleanError(
            f"{_name(model)} is not the model that the recipe was written for: {'; '.join(found)}.",
            f"Delete {place} and try again. If the message comes back, the hub's copy was changed: do not use it.",
        )
    return place


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
        weights = weights_among(files)
        kept = [file for file in files if not file.endswith(NOT_CONFIGURATION)] + list(weights.files if weights else ())
        wanted += [f"{folder}/{file}" for file in dict.fromkeys(kept)]
    return wanted


def _from_hub(model: HubModel, parts: tuple[str, ...]) -> Path:
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError
    from huggingface_hub.utils import disable_progress_bars

    if not sys.stderr.isatty():
        disable_progress_bars()
    name, page = _name(model), f"https://huggingface.co/{model.repository}"
    try:
        # This is one request without retries; the library's own listing would retry for half a minute or for ever.
        listing = HfApi().model_info(model.repository, revision=model.revision, timeout=_TIMEOUT_S).siblings or []
        wanted = files_to_fetch((file.rfilename for file in listing), parts)
        log.info("Fetching %s from its hub (once).", name)
        return Path(snapshot_download(model.repository, revision=model.revision, allow_patterns=wanted))
    except RevisionNotFoundError as error:
        raise DiffcleanError(f"{model.repository} has no revision {model.revision}.", f"See {page}/commits.") from error
    except GatedRepoError as error:
        raise DiffcleanError(
            f"{name} is available only to those who accept its terms.",
            f"Accept them on {page}, then type: hf auth login",
        ) from error
    except RepositoryNotFoundError as error:
        raise DiffcleanError(
            f"There is no folder {model.repository} here, and no model of that name on the hub that you have access "
            "to.",
            f"Check the spelling. If it is a private model, type: hf auth login. {_LOCAL_COPY}",
        ) from error
    except Exception as error:  # the library and those below it raise many kinds of errors
        if (place := _kept(model, parts)) is not None:
            log.info("The hub cannot be reached; using the copy of %s that was fetched before.", name)
            return place
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise DiffcleanError(
            f"{name} cannot be fetched from its hub: {reason}.",
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


def _whole(folder: Path) -> bool:
    """Whether a part is complete: a part with the configuration of a network must have its weights too."""
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    return bool(names) and ("config.json" not in names or weights_among(names) is not None)


def _name(model: HubModel) -> str:
    return f"{model.repository}@{model.revision}"
