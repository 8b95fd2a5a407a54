"""Objects that are drawn by formula, with shading and transparency: (H, W, 4) uint8 RGBA."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_SIDE = 256
_LIGHT = np.array([-0.45, -0.6, 0.66])
"""The direction towards the light: from the upper left, in front. x is to the right, y down, z to the viewer; of length
1."""


@lru_cache
def drawing(kind: str) -> NDArray[np.uint8]:
    """The drawing of that name in `DRAWINGS`; do not change the returned array."""
    return np.rint(np.clip(DRAWINGS[kind](), 0, 1) * 255).astype(np.uint8)


def ball() -> Floats:
    """A beach ball with six sectors of colour around a tilted axis, lit from the upper left, with a highlight."""
    x, y = _grid(_SIDE, _SIDE)
    z = np.sqrt(np.clip(1 - x**2 - y**2, 0, 1))
    # The seams run through two poles; the axis is tilted so that one pole is visible.
    sector = np.floor((np.arctan2(y + 0.35 * z, x - 0.25 * z) / np.pi + 1) * 3).astype(int) % 6
    white = [0.95, 0.95, 0.92]
    colors = np.array([[0.85, 0.1, 0.1], white, [0.1, 0.3, 0.8], white, [0.95, 0.75, 0.1], [0.1, 0.6, 0.3]])
    light = np.clip(x * _LIGHT[0] + y * _LIGHT[1] + z * _LIGHT[2], 0, 1)
    color = colors[sector] * (0.3 + 0.7 * light)[:, :, None]
    color += 0.6 * (light**24)[:, :, None]
    return _rgba(color, _inside(1 - np.hypot(x, y)))


def sunglasses() -> Floats:
    """Dark lenses in a black frame, with a streak of sky on each lens."""
    height = 104
    x, y = _grid(height, _SIDE)
    lens_x, lens_y = (x - 0.54 * np.sign(x)) / 0.45, y * height / _SIDE / 0.39  # 1 at the frame's outer edge
    shape = (np.abs(lens_x) ** 3 + np.abs(lens_y) ** 3) ** (1 / 3)  # a square with round corners
    lens, frame = _inside(0.84 - shape, 50), _inside(1 - shape, 50)
    bridge = _inside(0.13 - np.abs(lens_y + 0.4), 50) * (np.abs(x) < 0.2)
    streak = np.exp(-(((lens_x + lens_y + 0.6) / 0.25) ** 2))[:, :, None]
    below = (lens_y[:, :, None] + 1) / 2  # the lenses grow lighter towards their lower edge
    glass = np.array([0.05, 0.05, 0.07]) + 0.3 * below * np.array([0.8, 0.65, 0.45])
    glass = glass + 0.45 * streak * np.array([0.75, 0.85, 1.0])
    rim = 0.05 + 0.3 * np.exp(-(((lens_y + 0.9) / 0.07) ** 2))[:, :, None]  # light along the upper edge
    return _rgba(lens[:, :, None] * glass + (1 - lens[:, :, None]) * rim, np.maximum(frame, bridge))


def flower() -> Floats:
    """Six pink petals, darker towards a domed yellow centre."""
    x, y = _grid(_SIDE, _SIDE)
    radius, angle = np.hypot(x, y), np.arctan2(y, x)
    petal = np.abs(np.cos(3 * angle))  # 1 along the middle of a petal, 0 between two
    edge = 0.45 + 0.53 * petal**0.6
    depth = np.clip(radius / edge, 0, 1)
    shade = (0.55 + 0.45 * depth) * (0.75 + 0.25 * petal) * (1 - 0.12 * (x + y))
    color = shade[:, :, None] * np.array([0.95, 0.45, 0.65])
    dome = np.sqrt(np.clip(1 - (radius / 0.3) ** 2, 0, 1))
    light = np.clip((x * _LIGHT[0] + y * _LIGHT[1]) / 0.3 + dome * _LIGHT[2], 0, 1)
    centre = (0.4 + 0.6 * light)[:, :, None] * np.array([0.98, 0.78, 0.12])
    inner = _inside(0.3 - radius)[:, :, None]
    return _rgba(inner * centre + (1 - inner) * color, _inside(edge - radius))


DRAWINGS: dict[str, Callable[[], Floats]] = {"flower": flower, "ball": ball, "sunglasses": sunglasses}


def _grid(height: int, width: int) -> tuple[Floats, Floats]:
    """Coordinates x and y, (height, width) each, from -1 to 1 at the outer edges of the outermost pixels."""
    y, x = np.mgrid[0:height, 0:width]
    return (2 * x + 1) / width - 1, (2 * y + 1) / height - 1


def _inside(distance: Floats, sharpness: float = _SIDE / 2) -> Floats:
    """1 where `distance` to the edge is positive, 0 where it is negative, smooth over about a pixel between."""
    return np.clip(distance * sharpness + 0.5, 0, 1)


def _rgba(color: Floats, alpha: Floats) -> Floats:
    return np.concatenate([np.clip(color, 0, 1), alpha[:, :, None]], axis=2)
