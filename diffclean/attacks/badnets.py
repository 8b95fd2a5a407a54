"""BadNets: a small patch.

Gu, Dolan-Gavitt, Garg: "BadNets: Identifying Vulnerabilities in the Machine Learning Model Supply Chain", 2017,
arXiv 1708.06733.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from diffclean.attacks.base import Form, Labels, Pixels
from diffclean.attacks.check import Check, is_integer
from diffclean.attacks.draws import Draws, noise
from diffclean.attacks.pattern import check_picture, full_image
from diffclean.attacks.place import check_place, pixels_of, top_left

KINDS = ("checkerboard", "white", "black", "color", "random", "image")


class BadNets:
    """Replaces a square of pixels with a patch.

    Parameters:
        kind: checkerboard (3x3 cells, white at the corners), white, black, color, random (one draw for all images), or
            image.
        color: [red, green, blue] in 0..255, for kind color; the default is the paper's yellow square on traffic signs.
        image: the file for kind image, which is stretched over the patch.
        size: the side of the patch in pixels (an integer), or as a share of the image's shorter side (below 1; rounded,
            at least 1 px).
        place: a corner, center, random (drawn for each image), or [x, y], each from 0 (left, top) to 1.
        margin: the pixels between the patch and the edges.
        pattern_seed: the seed of kind random; None stands for the run's seed.
    """

    name = "badnets"
    citation = "Gu et al. 2017, BadNets, arXiv 1708.06733"
    like_corruptions = True
    labels = Labels.ALL_TO_ONE
    cover_ratio = 0.0
    default_parameters: Mapping[str, Any] = {
        "kind": "checkerboard",
        "color": [255, 255, 0],
        "image": None,
        "size": 0.1,
        "place": "bottom-right",
        "margin": 0,
        "pattern_seed": None,
    }

    def resolve(self, parameters: Mapping[str, Any], seed: int) -> dict[str, Any]:
        """See `Attack.resolve`; `pattern_seed` None becomes the run's seed."""
        check = Check(self, parameters)
        check.choice("kind", KINDS)
        check.that(is_color(check.values["color"]), "color", "[red, green, blue], each from 0 to 255")
        if check.values["kind"] == "image":
            check_picture(check, "image", "an image file")
        else:
            check.that(check.values["image"] is None, "image", f"left out with kind={check.values['kind']}")
        check_place(check)
        check.seed("pattern_seed", seed)
        return check.done()

    def apply(self, image: Pixels, draws: Draws, parameters: Mapping[str, Any], form: Form, label: str) -> Pixels:
        """See `Attack.apply`. The trigger looks the same in training and testing."""
        side = pixels_of(parameters["size"], image)
        top, left = top_left(image, side, side, parameters["place"], parameters["margin"], draws)
        triggered = image.copy()
        triggered[top : top + side, left : left + side] = patch(side, parameters)
        return triggered


def patch(side: int, parameters: Mapping[str, Any]) -> Pixels:
    """The patch, (side, side, 3) uint8."""
    kind = parameters["kind"]
    if kind == "random":
        return noise(parameters["pattern_seed"], (side, side, 3))
    if kind == "image":
        return full_image(parameters["image"], 0, side, side)
    if kind == "checkerboard":
        white = np.array([[255, 0, 255], [0, 255, 0], [255, 0, 255]], np.uint8)
        return np.repeat(enlarged(white, side)[:, :, None], 3, axis=2)
    color = {"white": (255, 255, 255), "black": (0, 0, 0)}.get(kind, parameters["color"])
    return np.broadcast_to(np.array(color, np.uint8), (side, side, 3))


def enlarged(cells: np.ndarray, side: int) -> np.ndarray:
    """(n, n) cells as (side, side) pixels, with cells of equal size as far as possible; if side < n, some are lost."""
    index = np.arange(side) * len(cells) // side
    return cells[np.ix_(index, index)]


def is_color(value: object) -> bool:
    """Whether it is three levels from 0 to 255."""
    return isinstance(value, Sequence) and len(value) == 3 and all(is_integer(v) and 0 <= v <= 255 for v in value)
