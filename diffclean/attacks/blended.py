"""Blended: a faint pattern over the whole image.

Chen, Liu, Li, Lu, Song: "Targeted Backdoor Attacks on Deep Learning Systems Using Data Poisoning", 2017, arXiv
1712.05526.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffclean.attacks.base import Form, Labels, Pixels
from diffclean.attacks.check import Check
from diffclean.attacks.draws import Draws
from diffclean.attacks.pattern import DRAWN, NOISE, check_picture, full_image


class Blended:
    """x' = (1 - alpha) x + alpha p (Chen et al. 2017, section IV: blended injection).

    It is computed in float64 on 0..255 and rounded to the nearest level, with halves to even; values cannot leave
    0..255.

    Parameters:
        alpha: the weight of the pattern, in (0, 1].
        pattern: `noise` (uniform, one draw for all images of a size), `picture` (drawn with the statistics of
            photographs, see `natural`), or an image file. `resolve` embeds the file as `png:<base64>` with sides of at
            most 512 px. Pictures are stretched over each image (bicubic).
        pattern_seed: the seed from which the pattern is drawn; None stands for the run's seed.
    """

    name = "blended"
    citation = "Chen et al. 2017, Targeted Backdoor Attacks (blended injection), arXiv 1712.05526"
    like_corruptions = True
    labels = Labels.ALL_TO_ONE
    cover_ratio = 0.0
    default_parameters: Mapping[str, Any] = {"alpha": 0.2, "pattern": NOISE, "pattern_seed": None}

    def resolve(self, parameters: Mapping[str, Any], seed: int) -> dict[str, Any]:
        """See `Attack.resolve`; `pattern_seed` None becomes the run's seed."""
        check = Check(self, parameters)
        check.number("alpha", above=0, most=1)
        check_pattern(check, seed)
        return check.done()

    def apply(self, image: Pixels, draws: Draws, parameters: Mapping[str, Any], form: Form, label: str) -> Pixels:
        """See `Attack.apply`.

        The trigger looks the same in training and testing, and is the same pattern for every image.
        """
        return blend(image, parameters, np.float64(parameters["alpha"]))


def check_pattern(check: Check, seed: int) -> None:
    """Check the parameters `pattern` and `pattern_seed`."""
    if check.values["pattern"] not in DRAWN:
        check_picture(check, "pattern", "noise, picture or an image file")
    check.seed("pattern_seed", seed)


def blend(image: Pixels, parameters: Mapping[str, Any], alpha: NDArray[np.float64] | np.float64) -> Pixels:
    """Blend the pattern into an image.

    Args:
        image: (H, W, 3) uint8.
        parameters: parameters with `pattern` and `pattern_seed`.
        alpha: the weight of the pattern, one number or (H, W, 1).

    Returns:
        (H, W, 3) uint8.
    """
    overlay = full_image(parameters["pattern"], parameters["pattern_seed"], *image.shape[:2])
    return np.rint((1 - alpha) * image.astype(np.float64) + alpha * overlay).astype(np.uint8)
