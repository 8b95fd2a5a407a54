"""BppAttack: fewer levels of colour, with dithering.

Wang, Zhai, Ma: "BppAttack: Stealthy and Efficient Trojan Attacks against Deep Neural Networks via Image Quantization
and Contrastive Adversarial Learning", CVPR 2022, arXiv 2205.13383.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffclean.attacks.base import Form, Labels, Pixels
from diffclean.attacks.check import Check
from diffclean.attacks.draws import Draws

Floats = NDArray[np.float64]


class Bpp:
    """x' = round(x (n - 1) / 255) 255 / (n - 1) for n levels in each channel.

    With dithering, the error of each pixel is passed on to its neighbours. The paper's contrastive training is not part
    of this attack, because it needs control over the training.

    Parameters:
        levels: n; a bit depth of d in the paper is 2^d levels.
        dither: whether the error is spread over the pixels to the right and below (Floyd and Steinberg 1976).
    """

    name = "bpp"
    citation = "Wang et al. 2022, BppAttack, CVPR 2022, arXiv 2205.13383"
    like_corruptions = False
    labels = Labels.ALL_TO_ONE
    cover_ratio = 0.0
    default_parameters: Mapping[str, Any] = {"levels": 8, "dither": True}

    def resolve(self, parameters: Mapping[str, Any], seed: int) -> dict[str, Any]:
        """See `Attack.resolve`. Nothing depends on the seed."""
        check = Check(self, parameters)
        check.integer("levels", 2, 128)
        check.flag("dither")
        return check.done()

    def apply(self, image: Pixels, draws: Draws, parameters: Mapping[str, Any], form: Form, label: str) -> Pixels:
        """See `Attack.apply`. The trigger looks the same in training and testing."""
        values = image.astype(np.float64)
        quantise = dithered if parameters["dither"] else quantised
        return np.rint(quantise(values, parameters["levels"])).astype(np.uint8)


def quantised(values: Floats, levels: int) -> Floats:
    """The nearest of `levels` equally spaced values in 0..255, with halves to even."""
    steps = levels - 1
    return np.clip(np.rint(values / 255 * steps), 0, steps) / steps * 255


def dithered(values: Floats, levels: int) -> Floats:
    """Quantise (H, W, C) with Floyd-Steinberg error diffusion: rows from the top, pixels in each row from the left.

    A pixel needs those to its left and above it, up to one column to the right. Therefore all pixels with the same
    column + 2 row are independent and are computed together. The additions keep their order, and the result is that of
    the plain double loop, bit for bit.
    """
    height, width = values.shape[:2]
    work = np.pad(values, ((0, 1), (1, 1), (0, 0)))  # room for the errors that leave the image
    for front in range(width + 2 * (height - 1)):
        row = np.arange(max(0, -(-(front - width + 1) // 2)), min(height - 1, front // 2) + 1)
        column = front - 2 * row + 1  # + 1 because of the padding
        old = work[row, column]
        new = quantised(old, levels)
        work[row, column] = new
        error = old - new
        work[row + 1, column + 1] += error * (1 / 16)
        work[row + 1, column] += error * (5 / 16)
        work[row + 1, column - 1] += error * (3 / 16)
        work[row, column + 1] += error * (7 / 16)
    return work[:height, 1:-1]
