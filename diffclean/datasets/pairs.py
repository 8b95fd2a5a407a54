"""Pairs variations with the originals that they were made from."""

from __future__ import annotations

from pathlib import Path

import torch

from diffclean.datasets.samples import Samples
from diffclean.errors import DiffcleanError


def paired(
    original: Samples, varied: Samples, missing: dict[str, str], source: Path, run: Path
) -> tuple[Samples, Samples]:
    """The images that are in both data sets, in the order of the variations.

    Args:
        original: the images of a data set.
        varied: the variations, from `load_variations`.
        missing: the reason by key why an image is in neither of the results; new reasons are added.
        source: the folder of the originals, for messages.
        run: the folder of the variations, for messages.

    Returns:
        The originals and the variations, with the same keys in the same order.

    Raises:
        DiffcleanError: no image is in both.
    """
    missing |= varied.failed
    place = {key: index for index, key in enumerate(original.keys)}
    pairs = []
    for index, key in enumerate(varied.keys):
        if key not in place:
            missing.setdefault(key, f"it is not in {source}")
        elif varied.sources[index] not in ("", original.sources[place[key]]):
            missing[key] = "the original was changed after its variation was made"
        else:
            pairs.append((place[key], index))
    for key in place.keys() - set(varied.keys):
        missing.setdefault(key, f"it has no variation in {run}")
    if not pairs:
        raise DiffcleanError(
            f"No variation in {run} has its original in {source}.",
            "Name the folder that the variations were made from.",
        )
    first, second = torch.tensor(pairs).T
    return original.chosen(first), varied.chosen(second)
