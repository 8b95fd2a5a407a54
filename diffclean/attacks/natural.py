"""A picture with the statistics of photographs, drawn from a seed, for attacks that blend in a natural picture.

It is a "dead leaves" model: opaque objects of all sizes, painted over one another until the ground is covered. With a
density r^-3 of sizes r, such pictures look alike at every scale. Their amplitude spectrum falls about as 1/f and their
edges are hard, as in photographs (Lee, Mumford and Huang 2001, "Occlusion Models for Natural Images", IJCV 41). Each
leaf is shaded, and light and texture with a spectrum of 1/f are added over the whole picture.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from diffclean.attacks.base import Pixels
from diffclean.attacks.draws import pattern_draws
from diffclean.attacks.fields import Floats, field, frequencies, scaled

_SIDE = 256
_LEAVES = 150
_SMALLEST, _LARGEST = 0.06, 0.6
"""The smallest and largest radius of the leaves, as shares of the side."""
_SATURATION = 0.4
"""The saturation of their colours; uniformly drawn ones would be more colourful than those of photographs."""
_TEXTURE = 60
"""The peak of the light and texture over the whole picture, in grey levels."""


@lru_cache(maxsize=16)
def natural_picture(seed: int) -> Pixels:
    """The picture of a seed: (256, 256, 3) uint8; do not change the returned array."""
    draws = pattern_draws(seed)
    y, x = (np.mgrid[0:_SIDE, 0:_SIDE] + 0.5) / _SIDE
    canvas = np.full((_SIDE, _SIDE, 3), 128.0)
    numbers = draws.uniform(_LEAVES, 9)
    # The inverse of the cumulative distribution of the density r^-3 turns uniform numbers into radii.
    low, high = _LARGEST**-2.0, _SMALLEST**-2.0
    radii = (high - numbers[:, 0] * (high - low)) ** -0.5
    for radius, (left, top, turn, length, corners, *color) in zip(radii, numbers[:, 1:], strict=True):
        along, across = _turned(x - left, y - top, np.pi * turn, radius)
        inside = _inside(along, across / (0.4 + 0.6 * length), round_=corners < 0.5)
        shade = 1 + 0.3 * along[inside]
        grey = np.mean(color)
        canvas[inside] = 255 * (grey + _SATURATION * (np.asarray(color) - grey)) * shade[:, None]
    frequency = np.maximum(frequencies(_SIDE // 4), 0.5)
    canvas += _TEXTURE * scaled(field(draws, 1 / frequency, _SIDE, _SIDE))
    return np.clip(np.rint(canvas), 0, 255).astype(np.uint8)


def _turned(x: Floats, y: Floats, angle: float, radius: float) -> tuple[Floats, Floats]:
    """Coordinates along and across a leaf at that angle, which are 1 at a distance of `radius`."""
    cos, sin = np.cos(angle) / radius, np.sin(angle) / radius
    return x * cos + y * sin, y * cos - x * sin


def _inside(along: Floats, across: Floats, round_: bool) -> NDArray[np.bool_]:
    """Whether a pixel belongs to a leaf, which is an ellipse or a rectangle."""
    inside: NDArray[np.bool_] = along**2 + across**2 < 1 if round_ else (np.abs(along) < 1) & (np.abs(across) < 1)
    return inside
