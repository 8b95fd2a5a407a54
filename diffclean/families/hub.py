"""Where a model's files are: a directory of one's own, or a hub's, fetched once."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from diffclean.errors import DiffcleanError
from diffclean.families.registry import (
    HubModel,
    Recipe,
    family_named,
    family_of,
    load_recipe,
)

log = logging.getLogger(__name__)


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
    """The local copy of a hub's model: `model_index.json` and the files that `parts` name, nothing else.

    Raises:
        DiffcleanError: as `located`.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    from diffclean.export.manifest import damage

    wanted = ["model_index.json", *parts]
    name = f"{model.repository}@{model.revision}"
    log.info("Fetching %s from its hub (once).", name)
    try:
        place = Path(snapshot_download(model.repository, revision=model.revision, allow_patterns=wanted))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DiffcleanError(
            f"Cannot fetch {name}: {reason}",
            "With a copy of the model's files here, give its folder in place of its name: "
            "diffclean export path/to/model, or --engine path/to/model.",
        ) from error
    if found := damage(place, dict(model.sha256)):
        raise DiffcleanError(
            f"{name} is not the model that the recipe was written for: {'; '.join(found)}.",
            f"Delete {place} and try again; if it stays so, the hub's copy was changed: do not use it.",
        )
    return place
