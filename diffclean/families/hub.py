"""Where a model's files are: a directory of one's own, or a hub's, fetched once."""

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
    "With a copy of the model's files here, give its folder in place of its name: "
    "diffclean export path/to/model, or --engine path/to/model."
)


def located(recipe: Recipe) -> Recipe:
    """The same recipe with its model directory; one that named a hub's model alone gets its family and defaults too.

    Raises:
        DiffcleanError: the hub cannot be reached or has no such model; a file's hash differs; no family runs it.
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
    """The local copy of a hub's model: `model_index.json` and of what `parts` name the files that are read.

    Where the hub cannot be reached, a copy that was fetched before is used.

    Raises:
        DiffcleanError: as `located`.
    """
    from diffclean.data.hashes import damage

    place = _from_hub(model, parts)
    if found := damage(place, dict(model.sha256) if parts else {}):
        raise DiffcleanError(
            f"{_name(model)} is not the model that the recipe was written for: {'; '.join(found)}.",
            f"Delete {place} and try again; if it stays so, the hub's copy was changed: do not use it.",
        )
    return place


def files_to_fetch(names: Iterable[str], parts: tuple[str, ...]) -> list[str]:
    """Of a model's files the ones that are read: configurations, vocabularies, and one form of the weights.

    A hub often has the same weights four times: in fp32 and fp16, as safetensors and as a pickle.

    Args:
        names: paths of all its files.
        parts: as `Family.parts`.
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
        # One request that is not repeated: the library's own listing would ask for half a minute, or for ever.
        listing = HfApi().model_info(model.repository, revision=model.revision, timeout=_TIMEOUT_S).siblings or []
        wanted = files_to_fetch((file.rfilename for file in listing), parts)
        log.info("Fetching %s from its hub (once).", name)
        return Path(snapshot_download(model.repository, revision=model.revision, allow_patterns=wanted))
    except RevisionNotFoundError as error:
        raise DiffcleanError(f"{model.repository} has no revision {model.revision}.", f"See {page}/commits.") from error
    except GatedRepoError as error:
        raise DiffcleanError(
            f"{name} is given only to those who accept its terms.", f"Do so on {page}, then: hf auth login"
        ) from error
    except RepositoryNotFoundError as error:
        raise DiffcleanError(
            f"There is no folder {model.repository} here, and no model of that name on the hub that is open to you.",
            f"Check the spelling. If it is a private one: hf auth login. {_LOCAL_COPY}",
        ) from error
    except Exception as error:  # its errors, and those of what it is built on, are of many kinds
        if (place := _kept(model, parts)) is not None:
            log.info("The hub cannot be reached; using the copy of %s that was fetched before.", name)
            return place
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise DiffcleanError(
            f"{name} cannot be fetched from its hub: {reason}.",
            f"There is no folder of that name here either. {_LOCAL_COPY}",
        ) from error


def _kept(model: HubModel, parts: tuple[str, ...]) -> Path | None:
    """A copy that was fetched before and has every part, or None."""
    from huggingface_hub import snapshot_download

    try:
        place = Path(
            snapshot_download(model.repository, revision=model.revision, allow_patterns=[_INDEX], local_files_only=True)
        )
    except Exception:  # not there, in any of the ways it has of saying so
        return None
    folders = [place / pattern.split("/")[0] for pattern in parts]
    return place if (place / _INDEX).is_file() and all(map(_whole, folders)) else None


def _whole(folder: Path) -> bool:
    """A part is there: what has the configuration of a network has its weights too."""
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    return bool(names) and ("config.json" not in names or weights_among(names) is not None)


def _name(model: HubModel) -> str:
    return f"{model.repository}@{model.revision}"
