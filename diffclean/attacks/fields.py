"""Random fields: sums of cosines with random weights, which look the same on an image of any size.

A cosine of k half periods over a side is the k-th basis function of the discrete cosine transform (DCT-II). Therefore
multiplying its weights by a shape is the same as filtering white noise with that shape. The weights are uniform in [-1,
1] before that, and the sum of many is nearly Gaussian. The constant is omitted, so each channel has the mean zero.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from diffclean.attacks.draws import Draws, pattern_draws

Floats = NDArray[np.float64]
MOST_PERIODS = 16
"""The highest cut-off that `smooth` takes: 16 periods fill an image of 32 px, and the limit bounds the work."""


@lru_cache(maxsize=2)  # few sizes, for a photograph takes hundreds of megabytes
def smooth(seed: int, periods: float, height: int, width: int) -> Floats:
    """White noise after a Gaussian low-pass, separately for each channel.

    Args:
        seed: the seed of the noise.
        periods: where the low-pass has fallen to exp(-1/2), in periods over the side; at most `MOST_PERIODS`.
        height: the height of the image.
        width: the width of the image.

    Returns:
        (height, width, 3) with mean zero and the largest absolute value 1; do not change the returned array.
    """
    return scaled(field(pattern_draws(seed), below(periods), height, width))


def below(periods: float) -> Floats:
    """The weights of a Gaussian low-pass that falls to exp(-1/2) at `periods`."""
    frequency = frequencies(math.ceil(4 * periods))  # beyond four widths, a Gaussian is practically zero
    weights: Floats = np.exp(-((frequency / periods) ** 2) / 2)
    return weights


def around(periods: float) -> Floats:
    """The weights of a Gaussian band-pass, which falls to exp(-1/2) a quarter of `periods` away from `periods`."""
    frequency = frequencies(math.ceil(2 * periods))
    weights: Floats = np.exp(-(((frequency - periods) / (periods / 4)) ** 2) / 2)
    return weights


def frequencies(periods: int) -> Floats:
    """(n, n): the frequency of each pair of cosines in periods over the side, up to `periods` in each direction."""
    half = np.arange(2 * periods + 1) / 2
    return np.hypot(half[:, None], half[None, :])


def field(draws: Draws, weights: Floats, height: int, width: int) -> Floats:
    """A sum of cosines, which is the same for every size except for what is too fine for the pixels.

    Args:
        draws: the source of the random weights.
        weights: (n, n), the factors of the random weights: row and column are half periods over the height and the
            width.
        height: the height of the image.
        width: the width of the image.

    Returns:
        (height, width, 3) with mean zero.
    """
    count = len(weights)
    drawn = (2 * draws.uniform(count, count, 3) - 1) * weights[:, :, None]
    drawn[0, 0] = 0
    down, across = cosines(min(count, height), height), cosines(min(count, width), width)
    return np.einsum("yh,yxc,xw->hwc", down, drawn[: len(down), : len(across)], across, optimize=True)


def cosines(count: int, size: int) -> Floats:
    """(count, size): cosines of 0, 1, ... half periods over `size` pixels, at the middles of the pixels.

    All of them have the same energy, as in the orthonormal DCT: the constant is divided by the square root of two.
    """
    middles = (2 * np.arange(size) + 1) / (2 * size)
    waves: Floats = np.cos(np.pi * np.arange(count)[:, None] * middles[None, :])
    waves[0] /= math.sqrt(2)
    return waves


def scaled(values: Floats) -> Floats:
    """The same values with 1 as the largest absolute value; zeros (in an image of one pixel) stay zeros."""
    return values / (np.abs(values).max() or 1.0)
