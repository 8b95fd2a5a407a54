"""Object: an object that could have been in the photograph. This attack is aimed at our own defence.

A variation model keeps what an image shows, and a natural object is a part of that. Everyday objects as triggers:
Wenger, Passananti, Bhagoji, Yao, Zheng, Zhao: "Backdoor Attacks Against Deep Learning Systems in the Physical World",
CVPR 2021, arXiv 2006.14580.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from diffclean.attacks.base import Form, Labels, Pixels
from diffclean.attacks.check import Check
from diffclean.attacks.drawings import DRAWINGS, drawing
from diffclean.attacks.draws import Draws
from diffclean.attacks.pattern import check_picture, picture
from diffclean.attacks.place import check_place, pixels_of, top_left

KINDS = (*DRAWINGS, "image")


class Object:
    """Pastes a drawing with shading, or a picture with transparency: x' = (1 - a) x + a o.

    Parameters:
        kind: flower, ball, sunglasses, or image.
        image: the file for kind image; its alpha channel, if it has one, is a.
        size: the longer side in pixels (an integer), or as a share of the image's shorter side (below 1).
        place: a corner, center, random (drawn for each image), or [x, y], each from 0 (left, top) to 1.
        margin: the pixels between the object and the edges.
    """

    name = "object"
    citation = "own; after Wenger et al. 2021, Backdoor Attacks in the Physical World, CVPR 2021, arXiv 2006.14580"
    like_corruptions = True
    labels = Labels.ALL_TO_ONE
    cover_ratio = 0.0
    default_parameters: Mapping[str, Any] = {
        "kind": "flower",
        "image": None,
        "size": 0.3,
        "place": "random",
        "margin": 0,
    }

    def resolve(self, parameters: Mapping[str, Any], seed: int) -> dict[str, Any]:
        """See `Attack.resolve`. Nothing depends on the seed."""
        check = Check(self, parameters)
        check.choice("kind", KINDS)
        if check.values["kind"] == "image":
            check_picture(check, "image", "an image file")
        else:
            check.that(check.values["image"] is None, "image", f"left out with kind={check.values['kind']}")
        check_place(check)
        return check.done()

    def apply(self, image: Pixels, draws: Draws, parameters: Mapping[str, Any], form: Form, label: str) -> Pixels:
        """See `Attack.apply`. The trigger looks the same in training and testing."""
        kind = parameters["kind"]
        whole = picture(parameters["image"]) if kind == "image" else drawing(kind)
        thing = resized(whole, pixels_of(parameters["size"], image)).astype(np.float64)
        height, width = thing.shape[:2]
        top, left = top_left(image, height, width, parameters["place"], parameters["margin"], draws)
        where = np.s_[top : top + height, left : left + width]
        alpha = thing[:, :, 3:] / 255
        triggered = image.copy()
        triggered[where] = np.rint((1 - alpha) * image[where] + alpha * thing[:, :, :3]).astype(np.uint8)
        return triggered


def resized(thing: NDArray[np.uint8], longer: int) -> NDArray[np.uint8]:
    """(H, W, 4) with a longer side of `longer` px and the same shape; colours are weighted by their opacity."""
    scale = longer / max(thing.shape[:2])
    height, width = (max(1, round(side * scale)) for side in thing.shape[:2])
    return np.asarray(Image.fromarray(thing).resize((width, height), Image.Resampling.LANCZOS))
