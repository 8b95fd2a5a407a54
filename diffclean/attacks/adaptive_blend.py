"""Adaptive-Blend: pieces of a blended pattern, with covers that carry them too and keep their label.

Qi, Xie, Li, Mahloujifar, Mittal: "Revisiting the Assumption of Latent Separability for Backdoor Defenses", ICLR 2023,
openreview _wSHsgrVali (earlier: arXiv 2205.13613).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffclean.attacks.base import Form, Labels, Pixels
from diffclean.attacks.blended import blend, check_pattern
from diffclean.attacks.check import Check, is_integer
from diffclean.attacks.draws import Draws
from diffclean.attacks.pattern import NOISE
from diffclean.errors import UsageError


class AdaptiveBlend:
    """x' = x + alpha m (p - x). In training, m is 1 on some pieces of a grid, drawn for each image, and 0 elsewhere.

    In testing, m is 1 everywhere and alpha is higher. Covers look like poisoned images and keep their label, so that
    triggered images do not gather in one place of the model's feature space.

    Parameters:
        alpha: the weight of the pattern on training images, in (0, 1].
        test_alpha: the weight of the pattern on test images.
        pieces: the number of pieces that the pattern is cut into, a square number.
        mask_rate: the share of the pieces that is left out of each training image.
        pattern: `noise`, `picture` or an image file, as for `blended`. (The paper's pattern is a cartoon that cannot be
            shipped.)
        pattern_seed: the seed from which the pattern is drawn; None stands for the run's seed.
    """

    name = "adaptive-blend"
    citation = "Qi et al. 2023, Revisiting Latent Separability (Adaptive-Blend), ICLR 2023, arXiv 2205.13613"
    like_corruptions = True
    labels = Labels.ALL_TO_ONE
    cover_ratio = 1.0
    default_parameters: Mapping[str, Any] = {
        "alpha": 0.15,
        "test_alpha": 0.2,
        "pieces": 16,
        "mask_rate": 0.5,
        "pattern": NOISE,
        "pattern_seed": None,
    }

    def resolve(self, parameters: Mapping[str, Any], seed: int) -> dict[str, Any]:
        """See `Attack.resolve`; `pattern_seed` None becomes the run's seed."""
        check = Check(self, parameters)
        check.number("alpha", above=0, most=1)
        check.number("test_alpha", above=0, most=1)
        pieces, mask_rate = check.values["pieces"], check.values["mask_rate"]
        square = is_integer(pieces) and pieces >= 1 and math.isqrt(pieces) ** 2 == pieces
        check.that(square, "pieces", "a square number, such as 16")
        if (mask_rate == 0 or check.number("mask_rate", above=0, most=1)) and square:
            kept = pieces - round(mask_rate * pieces)
            check.that(kept > 0, "mask_rate", f"low enough to keep one of {pieces} pieces")
        check_pattern(check, seed)
        return check.done()

    def apply(self, image: Pixels, draws: Draws, parameters: Mapping[str, Any], form: Form, label: str) -> Pixels:
        """See `Attack.apply`. Test images get the complete pattern."""
        if form is Form.TEST:
            return blend(image, parameters, np.float64(parameters["test_alpha"]))
        pieces = parameters["pieces"]
        kept = draws.subset(pieces - round(parameters["mask_rate"] * pieces), pieces)
        return blend(image, parameters, parameters["alpha"] * mask(image, pieces, kept))


def mask(image: Pixels, pieces: int, kept: list[int]) -> NDArray[np.float64]:
    """(H, W, 1): 1 on the pieces that are kept, which are counted row by row; their sides differ by at most 1 px.

    Raises:
        UsageError: the image has fewer pixels along a side than pieces.
    """
    height, width = image.shape[:2]
    side = math.isqrt(pieces)
    if min(height, width) < side:
        raise UsageError(
            f"A pattern of {side}x{side} pieces does not fit an image of {width}x{height} px.",
            f"Give fewer pieces: -p pieces={min(height, width) ** 2}",
        )
    shown = np.isin(np.arange(pieces), kept).reshape(side, side).astype(np.float64)
    rows, columns = np.arange(height) * side // height, np.arange(width) * side // width
    return shown[np.ix_(rows, columns)][:, :, None]
