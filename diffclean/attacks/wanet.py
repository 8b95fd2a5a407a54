"""WaNet: a small smooth warp.

Nguyen, Tran: "WaNet - Imperceptible Warping-based Backdoor Attack", ICLR 2021, arXiv 2102.10369.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffclean.attacks.base import Form, Labels, Pixels
from diffclean.attacks.check import Check
from diffclean.attacks.draws import Draws, pattern_draws

Floats = NDArray[np.float64]


class WaNet:
    """Samples the image at M = clip(identity + s up(P) / side), with one field for all images.

    P is k x k x 2 uniform in [-1, 1], divided by the mean of its absolute values; `up` is bicubic interpolation. The
    field is in coordinates from -1 to 1 along each side, as in the authors' code. The mean displacement is therefore
    about s / 2 px on an image of any size, so a large photograph needs a larger s. Values between pixels are
    interpolated bilinearly.

    Covers (the paper's noise mode, two for each poisoned image) are sampled at M plus noise of their own, uniform in
    [-1, 1] / side for each pixel.

    Parameters:
        k: the number of control points along each side.
        s: the strength of the warp.
        pattern_seed: the seed of the control points; None stands for the run's seed.
    """

    name = "wanet"
    citation = "Nguyen and Tran 2021, WaNet, ICLR 2021, arXiv 2102.10369"
    like_corruptions = False
    labels = Labels.ALL_TO_ONE
    cover_ratio = 2.0
    default_parameters: Mapping[str, Any] = {"k": 4, "s": 0.5, "pattern_seed": None}

    def resolve(self, parameters: Mapping[str, Any], seed: int) -> dict[str, Any]:
        """See `Attack.resolve`; `pattern_seed` None becomes the run's seed."""
        check = Check(self, parameters)
        check.integer("k", least=2)
        check.number("s", above=0, most=math.inf)
        check.seed("pattern_seed", seed)
        return check.done()

    def apply(self, image: Pixels, draws: Draws, parameters: Mapping[str, Any], form: Form, label: str) -> Pixels:
        """See `Attack.apply`. Covers get noise in addition to the warp."""
        height, width = image.shape[:2]
        moved = parameters["s"] * field(parameters["k"], parameters["pattern_seed"], height, width)
        if form is Form.COVER:
            moved = moved + 2 * draws.uniform(height, width, 2) - 1
        x = np.linspace(-1, 1, width)[None, :] + moved[:, :, 0] / width
        y = np.linspace(-1, 1, height)[:, None] + moved[:, :, 1] / height
        return sampled(image, x, y)


@lru_cache(maxsize=2)  # few sizes, for a photograph takes hundreds of megabytes
def field(k: int, pattern_seed: int, height: int, width: int) -> Floats:
    """up(P): (height, width, 2), where the last axis has x before y; do not change the returned array."""
    control = 2 * pattern_draws(pattern_seed).uniform(k, k, 2) - 1
    control /= np.abs(control).mean()
    return np.einsum("hi,ijc,wj->hwc", cubic(k, height), control, cubic(k, width), optimize=True)


def cubic(points: int, size: int) -> Floats:
    """(size, points) weights that interpolate `points` values to `size`, with coinciding ends.

    Values beyond the ends are repeated. The kernel is the cubic convolution of Keys 1981 with a = -0.75, which is
    torch's `bicubic`.
    """
    a = -0.75
    position = np.linspace(0, points - 1, size) if size > 1 else np.zeros(1)
    first = np.floor(position).astype(int)
    weights = np.zeros((size, points))
    for offset in (-1, 0, 1, 2):
        d = np.abs(position - first - offset)
        near = (a + 2) * d**3 - (a + 3) * d**2 + 1
        far = a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a
        column = np.clip(first + offset, 0, points - 1)
        np.add.at(weights, (np.arange(size), column), np.where(d <= 1, near, np.where(d < 2, far, 0)))
    return weights


def sampled(image: Pixels, x: Floats, y: Floats) -> Pixels:
    """The image at the positions (x, y), each (H, W), bilinear; -1 and 1 are the middles of the outermost pixels."""
    height, width = image.shape[:2]
    column = (np.clip(x, -1, 1) + 1) / 2 * (width - 1)
    row = (np.clip(y, -1, 1) + 1) / 2 * (height - 1)
    left, top = np.floor(column).astype(int), np.floor(row).astype(int)
    right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    across, down = (column - left)[:, :, None], (row - top)[:, :, None]
    upper = (1 - across) * image[top, left] + across * image[top, right]
    lower = (1 - across) * image[bottom, left] + across * image[bottom, right]
    return np.rint((1 - down) * upper + down * lower).astype(np.uint8)
