"""Random fields: sums of cosines with random weights, which look the same on an image of any size.

A cosine of k half periods over a side is the k-th basis function of the discrete cosine transform (DCT-II), so that
giving its weights a shape is the same as filtering white noise with that shape. Weights are uniform in [-1, 1] before
they are shaped; the sum of many is nearly Gaussian. The constant is left out, so each channel has the mean zero.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from diffclean.attacks.draws import Draws, pattern_draws

Floats = NDArray[np.float64]
MOST_PERIODS = 16
"""The highest cut-off that `smooth` takes: 16 periods fill an image of 32 px, and it bounds the work."""


@lru_cache(maxsize=16)
def smooth(seed: int, periods: float, height: int, width: int) -> Floats:
    """White noise behind a Gaussian low-pass, each channel on its own.

    Args:
        seed: of the noise.
        periods: where the low-pass has fallen to exp(-1/2), in periods over the side; at most `MOST_PERIODS`.
        height: of the image.
        width: of the image.

    Returns:
        (height, width, 3), of mean zero, its largest absolute value 1; read-only in use.
    """
    return scaled(field(pattern_draws(seed), below(periods), height, width))


def below(periods: float) -> Floats:
    """Weights of a Gaussian low-pass that falls to exp(-1/2) at `periods`."""
    frequency = frequencies(math.ceil(4 * periods))  # beyond four widths a Gaussian lets nothing through
    weights: Floats = np.exp(-((frequency / periods) ** 2) / 2)
    return weights


def around(periods: float) -> Floats:
    """Weights of a Gaussian band-pass around `periods`, which falls to exp(-1/2) a quarter of that to either side."""
    frequency = frequencies(math.ceil(2 * periods))
    weights: Floats = np.exp(-(((frequency - periods) / (periods / 4)) ** 2) / 2)
    return weights


def frequencies(periods: int) -> Floats:
    """(n, n): the frequency of each pair of cosines in periods over the side, up to `periods` in each direction."""
    half = np.arange(2 * periods + 1) / 2
    return np.hypot(half[:, None], half[None, :])


def field(draws: Draws, weights: Floats, height: int, width: int) -> Floats:
    """A sum of cosines, drawn alike for every size; what is too fine for the pixels is left out.

    Args:
        draws: where the random weights come from.
        weights: (n, n), what they are multiplied by: row and column are half periods over the height and the width.
        height: of the image.
        width: of the image.

    Returns:
        (height, width, 3), of mean zero.
    """
    count = len(weights)
    drawn = (2 * draws.uniform(count, count, 3) - 1) * weights[:, :, None]
    drawn[0, 0] = 0
    down, across = cosines(min(count, height), height), cosines(min(count, width), width)
    return np.einsum("yh,yxc,xw->hwc", down, drawn[: len(down), : len(across)], across, optimize=True)


def cosines(count: int, size: int) -> Floats:
    """(count, size): cosines of 0, 1, ... half periods over `size` pixels, at the middles of the pixels.

    All have the same energy, as those of the orthonormal DCT have: the constant is divided by the root of two.
    """
    middles = (2 * np.arange(size) + 1) / (2 * size)
    waves: Floats = np.cos(np.pi * np.arange(count)[:, None] * middles[None, :])
    waves[0] /= math.sqrt(2)
    return waves


def scaled(values: Floats) -> Floats:
    """The same with 1 as the largest absolute value; nothing stays nothing (an image of one pixel)."""
    return values / (np.abs(values).max() or 1.0)
