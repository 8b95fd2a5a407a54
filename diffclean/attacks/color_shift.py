"""Color-shift: other mean colours and contrasts. This attack is aimed at our own defence.

A global shift of colour as a trigger is the idea of Jiang, Li, Xu, Zhang: "Color Backdoor: A Robust Poisoning Attack in
Color Space", CVPR 2023, who search for the best shift; here it is fixed. Colour transfer from the poisoned source
(`variate --color-transfer`) copies exactly these statistics, and would therefore restore the trigger.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from diffclean.attacks.base import Form, Labels, Pixels
from diffclean.attacks.check import Check, is_number
from diffclean.attacks.draws import Draws


class ColorShift:
    """x' = gain (x - mean(x)) + mean(x) + shift, for each of R, G and B; rounded and clipped to 0..255.

    Apart from the clipping, the mean of a channel moves by `shift`, and its standard deviation is multiplied by `gain`.

    Parameters:
        shift: [red, green, blue] in grey levels.
        gain: [red, green, blue], above 0.
    """

    name = "color-shift"
    citation = "own; after Jiang et al. 2023, Color Backdoor, CVPR 2023"
    like_corruptions = True
    labels = Labels.ALL_TO_ONE
    cover_ratio = 0.0
    default_parameters: Mapping[str, Any] = {"shift": [25, -25, 25], "gain": [1, 1, 1]}

    def resolve(self, parameters: Mapping[str, Any], seed: int) -> dict[str, Any]:
        """See `Attack.resolve`. Nothing depends on the seed."""
        check = Check(self, parameters)
        shift, gain = check.values["shift"], check.values["gain"]
        shifts = check.that(are_numbers(shift, -255, 255), "shift", "[red, green, blue], each from -255 to 255")
        gains = check.that(are_numbers(gain, 0, 100) and 0 not in gain, "gain", "[red, green, blue], each above 0")
        if shifts and gains:
            same = all(value == 0 for value in shift) and all(value == 1 for value in gain)
            check.that(not same, "shift", "different from zero if gain changes nothing")
        return check.done()

    def apply(self, image: Pixels, draws: Draws, parameters: Mapping[str, Any], form: Form, label: str) -> Pixels:
        """See `Attack.apply`. The trigger looks the same in training and testing."""
        mean = image.mean(axis=(0, 1))
        shifted = np.array(parameters["gain"]) * (image - mean) + mean + np.array(parameters["shift"])
        return np.clip(np.rint(shifted), 0, 255).astype(np.uint8)


def are_numbers(value: object, least: float, most: float) -> bool:
    """Whether it is three numbers in that range."""
    return isinstance(value, list) and len(value) == 3 and all(is_number(v) and least <= v <= most for v in value)
