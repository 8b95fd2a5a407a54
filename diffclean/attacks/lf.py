"""LF: a faint smooth pattern that is added to every triggered image.

Zeng, Park, Mao, Jia: "Rethinking the Backdoor Attacks' Triggers: A Frequency Perspective", ICCV 2021, arXiv 2104.03413.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from diffclean.attacks.base import Form, Labels, Pixels
from diffclean.attacks.check import Check
from diffclean.attacks.draws import Draws
from diffclean.attacks.fields import MOST_PERIODS, smooth


class Lf:
    """x' = x + amplitude p, with one smooth pattern p for all images; rounded and clipped to 0..255.

    The pattern is drawn and not optimised: it is random noise after a Gaussian low-pass (see `fields.smooth`). The
    paper searches for a smooth pattern that changes the answers of a trained model as far as possible, and needs that
    model. For a defence both are alike: one additive pattern in all poisoned images, without the high frequencies that
    reveal other triggers.

    The attack is marked as resembling what `micro` was trained on. `micro` learned to remove mixed-in natural pictures,
    which consist mostly of low frequencies, like this pattern. That this pattern is the same in each image and darkens
    nothing does not make it a different kind.

    Parameters:
        amplitude: the largest change of a channel, in grey levels; its standard deviation is about a third of that.
        periods: the smoothness: where the low-pass has fallen to exp(-1/2), in periods over the side. Less is smoother.
        pattern_seed: the seed of the pattern; None stands for the run's seed.
    """

    name = "lf"
    citation = "Zeng et al. 2021, Rethinking the Backdoor Attacks' Triggers (LF), ICCV 2021, arXiv 2104.03413"
    like_corruptions = True
    labels = Labels.ALL_TO_ONE
    cover_ratio = 0.0
    default_parameters: Mapping[str, Any] = {"amplitude": 32, "periods": 2, "pattern_seed": None}

    def resolve(self, parameters: Mapping[str, Any], seed: int) -> dict[str, Any]:
        """See `Attack.resolve`; `pattern_seed` None becomes the run's seed."""
        check = Check(self, parameters)
        check.number("amplitude", above=0, most=255)
        check.number("periods", above=0, most=MOST_PERIODS)
        check.seed("pattern_seed", seed)
        return check.done()

    def apply(self, image: Pixels, draws: Draws, parameters: Mapping[str, Any], form: Form, label: str) -> Pixels:
        """See `Attack.apply`.

        The trigger looks the same in training and testing, and is the same pattern for every image.
        """
        pattern = smooth(parameters["pattern_seed"], parameters["periods"], *image.shape[:2])
        return np.clip(np.rint(image + parameters["amplitude"] * pattern), 0, 255).astype(np.uint8)
