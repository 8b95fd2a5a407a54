"""A picture with the statistics of photographs, drawn from a seed, for attacks that blend a natural picture in.

It is a "dead leaves" model: opaque things of all sizes, painted over one another until the ground is covered. With
sizes r of density r^-3 such pictures look alike at every scale; their amplitude spectrum falls about as 1/f and their
edges are hard, as in photographs (Lee, Mumford and Huang 2001, "Occlusion Models for Natural Images", IJCV 41). Each
leaf is shaded, and light and texture with a spectrum of 1/f lie over all.
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
"""Of the leaves' radii, as shares of the side."""
_SATURATION = 0.4
"""Of their colours: uniform ones would be more colourful than photographs are."""
_TEXTURE = 60
"""Peak of the light and texture that lie over all, in grey levels."""


@lru_cache(maxsize=16)
def natural_picture(seed: int) -> Pixels:
    """The picture of that seed: (256, 256, 3) uint8, read-only in use."""
    draws = pattern_draws(seed)
    y, x = (np.mgrid[0:_SIDE, 0:_SIDE] + 0.5) / _SIDE
    canvas = np.full((_SIDE, _SIDE, 3), 128.0)
    numbers = draws.uniform(_LEAVES, 9)
    # A uniform number through the inverse of the cumulative distribution of density r^-3.
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
    """Coordinates along and across a leaf at that angle, 1 at a distance of `radius`."""
    cos, sin = np.cos(angle) / radius, np.sin(angle) / radius
    return x * cos + y * sin, y * cos - x * sin


def _inside(along: Floats, across: Floats, round_: bool) -> NDArray[np.bool_]:
    """Whether a pixel belongs to a leaf, an ellipse or a rectangle."""
    inside: NDArray[np.bool_] = along**2 + across**2 < 1 if round_ else (np.abs(along) < 1) & (np.abs(across) < 1)
    return inside
