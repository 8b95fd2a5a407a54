"""SIG: a faint sinusoid on images that keep their label.

Barni, Kallas, Tondi: "A New Backdoor Attack in CNNs by Training Set Corruption Without Label Poisoning", ICIP 2019,
arXiv 1902.11237.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from diffclean.attacks.base import Form, Labels, Pixels
from diffclean.attacks.check import Check
from diffclean.attacks.draws import Draws
from diffclean.errors import UsageError


class Sig:
    """x' = x + v with v(i, j) = delta sin(2 pi j f / m), row i, column j = 1..m (Barni et al. 2019).

    It is the same in all rows and channels, rounded to the nearest level and clipped to 0..255.

    Parameters:
        delta: the amplitude in grey levels on training images.
        f: the periods over the width of the image.
        test_delta: the amplitude on test images; None stands for delta. The paper also tests with a stronger signal.
    """

    name = "sig"
    citation = "Barni et al. 2019, A New Backdoor Attack Without Label Poisoning (SIG), arXiv 1902.11237"
    like_corruptions = False
    labels = Labels.CLEAN
    cover_ratio = 0.0
    default_parameters: Mapping[str, Any] = {"delta": 20, "f": 6, "test_delta": None}

    def resolve(self, parameters: Mapping[str, Any], seed: int) -> dict[str, Any]:
        """See `Attack.resolve`; `test_delta` None becomes `delta`."""
        check = Check(self, parameters)
        check.number("delta", above=0, most=255)
        check.number("f", above=0, most=math.inf)
        if check.values["test_delta"] is None:
            check.values["test_delta"] = check.values["delta"]
        else:
            check.number("test_delta", above=0, most=255)
        return check.done()

    def apply(self, image: Pixels, draws: Draws, parameters: Mapping[str, Any], form: Form, label: str) -> Pixels:
        """See `Attack.apply`. Test images can get another amplitude."""
        height, width = image.shape[:2]
        if width <= 2 * parameters["f"]:  # with two pixels for each period, the sine is zero at every pixel
            raise UsageError(
                f"A wave of {parameters['f']:g} periods does not fit an image of {width}x{height} px.",
                f"It needs more than two pixels for each period: give an f below {width / 2:g}, such as -p f=1",
            )
        delta = parameters["test_delta" if form is Form.TEST else "delta"]
        wave = delta * np.sin(2 * np.pi * np.arange(1, width + 1) * parameters["f"] / width)
        return np.clip(np.rint(image + wave[None, :, None]), 0, 255).astype(np.uint8)
