"""BadNets: a small patch.

Gu, Dolan-Gavitt, Garg: "BadNets: Identifying Vulnerabilities in the Machine Learning Model Supply Chain", 2017,
arXiv 1708.06733.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from diffclean.attacks.base import Pixels, is_integer, is_number, noise, require, with_defaults
from diffclean.errors import UsageError

KINDS = ("checkerboard", "white", "black", "random")
PLACES = ("top-left", "top-right", "bottom-left", "bottom-right", "random")


class BadNets:
    """Overwrites a square of pixels. No arithmetic: the patch replaces what was there.

    Parameters:
        kind: checkerboard (3x3 cells, white at the corners), white, black, or random (one draw for all images).
        size: pixels a side (an integer), or the share of the image's shorter side (below 1; rounded, at least 1 px).
        place: a corner, or random (drawn for each image).
        margin: pixels between the patch and the edges at its corner.
    """

    name = "badnets"
    citation = "Gu et al. 2017, BadNets, arXiv 1708.06733"
    default_parameters: Mapping[str, Any] = {
        "kind": "checkerboard",
        "size": 0.1,
        "place": "bottom-right",
        "margin": 0,
        "pattern_seed": None,
    }

    def resolve(self, parameters: Mapping[str, Any], seed: int) -> dict[str, Any]:
        """See `Attack.resolve`; `pattern_seed` None becomes the run's seed."""
        chosen = with_defaults(self, parameters)
        size, margin = chosen["size"], chosen["margin"]
        require(chosen["kind"] in KINDS, self, "kind", chosen["kind"], f"one of {', '.join(KINDS)}")
        require(chosen["place"] in PLACES, self, "place", chosen["place"], f"one of {', '.join(PLACES)}")
        require(
            is_number(size) and (0 < size < 1 or (size >= 1 and size == int(size))),
            self,
            "size",
            size,
            "a number of pixels, or a share of the image below 1",
        )
        require(is_integer(margin) and margin >= 0, self, "margin", margin, "0 or more pixels")
        chosen["pattern_seed"] = seed if chosen["pattern_seed"] is None else chosen["pattern_seed"]
        require(is_integer(chosen["pattern_seed"]), self, "pattern_seed", chosen["pattern_seed"], "an integer")
        return chosen

    def apply(self, image: Pixels, rng: np.random.Generator, parameters: Mapping[str, Any]) -> Pixels:
        """See `Attack.apply`."""
        height, width = image.shape[:2]
        size, margin = parameters["size"], int(parameters["margin"])
        side = int(size) if size >= 1 else max(1, round(size * min(height, width)))
        room_y, room_x = height - side - 2 * margin, width - side - 2 * margin
        if min(room_y, room_x) < 0:
            raise UsageError(
                f"A patch of {side} px with a margin of {margin} px does not fit an image of {width}x{height} px.",
                "Give a smaller size, or one that follows the image: -p size=0.1",
            )
        place = parameters["place"]
        if place == "random":
            top, left = margin + int(rng.integers(room_y + 1)), margin + int(rng.integers(room_x + 1))
        else:
            top = margin + (room_y if place.startswith("bottom") else 0)
            left = margin + (room_x if place.endswith("right") else 0)
        triggered = image.copy()
        triggered[top : top + side, left : left + side] = patch(parameters["kind"], side, parameters["pattern_seed"])
        return triggered


def patch(kind: str, side: int, pattern_seed: int) -> Pixels:
    """(side, side, 3) uint8."""
    if kind == "random":
        return noise(pattern_seed, (side, side, 3))
    if kind == "checkerboard":
        cell = np.arange(side) * 3 // side
        white = (cell[:, None] + cell[None, :]) % 2 == 0
        return np.repeat(np.where(white, 255, 0).astype(np.uint8)[:, :, None], 3, axis=2)
    return np.full((side, side, 3), 255 if kind == "white" else 0, np.uint8)
