"""Two-scale: a smooth and a fine pattern that only together are the trigger, against detectors that use views.

This attack is our own; random parts and covers are taken from Qi et al. 2023 (`adaptive_blend`).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from diffclean.attacks.base import Form, Labels, Pixels
from diffclean.attacks.check import Check
from diffclean.attacks.draws import Draws, pattern_draws
from diffclean.attacks.fields import MOST_PERIODS, Floats, around, below, field


class TwoScale:
    """x' = x + smooth s + fine f, where both patterns are sums of random parts; rounded and clipped to 0..255.

    A detector that judges labels on a view of the images finds poison if the view hides the trigger. This trigger is
    made so that no single view hides all of it. Its smooth pattern remains in coarse pixels and blurred images, and its
    fine pattern in edges, gradients and other high-pass views. Both cover the whole image, so that crops and masks
    leave much of them, and they differ between the channels, so that brightness shows them as well as colour.

    Against detectors that isolate what is learned early, the trigger is hard to learn. A training image carries only a
    random part of each pattern, faintly, while a cover carries a part of *one* of them and keeps its label, so that
    neither pattern alone determines the class. There are half as many covers as poisoned images, so that the target
    class is still the likeliest label for a detector that sees one of the patterns. Test images carry both patterns
    completely.

    The attack is not aimed at detectors that leave a whole candidate group out of training and then ask about it: its
    labels are dirty, and a network that has never seen the trigger does not confirm them.

    Whether the attack fires and evades detectors must be measured: look at the attack success rate before using it.

    Parameters:
        smooth: the peak of the whole smooth pattern, in grey levels.
        fine: the peak of the whole fine pattern, in grey levels.
        smooth_periods: the cut-off of the smooth pattern in periods over the side, as for `lf`.
        fine_periods: the middle of the fine pattern's band, which falls to exp(-1/2) at a quarter of that to either
            side.
        parts: the number of parts of each pattern; it must be even, since training images carry half of them.
        pattern_seed: the seed of both patterns; None stands for the run's seed.
    """

    name = "two-scale"
    citation = "own, 2026; after Qi et al. 2023, Revisiting Latent Separability, ICLR 2023, arXiv 2205.13613"
    like_corruptions = True
    labels = Labels.ALL_TO_ONE
    cover_ratio = 0.5
    default_parameters: Mapping[str, Any] = {
        "smooth": 48,
        "fine": 48,
        "smooth_periods": 1.5,
        "fine_periods": 8,
        "parts": 4,
        "pattern_seed": None,
    }

    def resolve(self, parameters: Mapping[str, Any], seed: int) -> dict[str, Any]:
        """See `Attack.resolve`; `pattern_seed` None becomes the run's seed."""
        check = Check(self, parameters)
        check.number("smooth", above=0, most=255)
        check.number("fine", above=0, most=255)
        check.number("smooth_periods", above=0, most=MOST_PERIODS)
        check.number("fine_periods", above=0, most=MOST_PERIODS)
        if check.integer("parts", 2, 16):
            check.that(check.values["parts"] % 2 == 0, "parts", "an even number")
        check.seed("pattern_seed", seed)
        return check.done()

    def apply(self, image: Pixels, draws: Draws, parameters: Mapping[str, Any], form: Form, label: str) -> Pixels:
        """See `Attack.apply`.

        Training images get half of each pattern, covers half of one, and test images everything.
        """
        smooth, fine = patterns(parameters, *image.shape[:2])
        if form is not Form.TEST:
            count = parameters["parts"]
            smooth, fine = (pattern[draws.subset(count // 2, count)] for pattern in (smooth, fine))
        strength = [parameters["smooth"], parameters["fine"]]
        if form is Form.COVER:
            strength[draws.integer(2)] = 0
        change = strength[0] * smooth.sum(axis=0) + strength[1] * fine.sum(axis=0)
        return np.clip(np.rint(image + change), 0, 255).astype(np.uint8)


def patterns(parameters: Mapping[str, Any], height: int, width: int) -> tuple[Floats, Floats]:
    """The smooth and the fine pattern, (parts, height, width, 3) each; the sum of all parts has the peak 1."""
    names = ("pattern_seed", "smooth_periods", "fine_periods", "parts")
    return _patterns(*(parameters[name] for name in names), height, width)


@lru_cache(maxsize=1)  # one size, for a photograph of 12 megapixels takes 2 GB
def _patterns(
    seed: int, smooth_periods: float, fine_periods: float, parts: int, height: int, width: int
) -> tuple[Floats, Floats]:
    draws = pattern_draws(seed)

    def drawn(weights: Floats) -> Floats:
        made = np.stack([field(draws, weights, height, width) for _ in range(parts)])
        peak: float = np.abs(made.sum(axis=0)).max()
        return made / (peak or 1.0)

    return drawn(below(smooth_periods)), drawn(around(fine_periods))
