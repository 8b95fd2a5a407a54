"""Colour transfer: gives a variation the colour statistics of its source.

It is off by default, because it copies statistics of the suspect image, and with them a trigger that shifts colours.
`mean-std` is the paper's method (Struppek et al., arXiv 2310.06372, for each RGB channel); `lab` does the same in
CIELAB (Reinhard et al., "Color Transfer between Images", 2001).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from diffclean.data.pixels import Pixels

Floats = NDArray[np.float32]

# sRGB (IEC 61966-2-1) to CIE XYZ, divided by the D65 white point.
_XYZ_FROM_RGB = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]],
    dtype=np.float32,
) / np.array([[0.95047], [1.0], [1.08883]], dtype=np.float32)
_LAB_FROM_F = np.array([[0, 116, 0], [500, -500, 0], [0, 200, -200]], dtype=np.float32)
_DELTA = 6 / 29


class ColorTransfer(StrEnum):
    """The colour space whose statistics are transferred."""

    NONE = "none"
    MEAN_STD = "mean-std"
    LAB = "lab"


@dataclass(frozen=True, slots=True)
class ColorStatistics:
    """The mean and standard deviation of each channel, in the colour space of the transfer."""

    mean: Floats
    std: Floats


def statistics(image: Pixels, transfer: ColorTransfer) -> ColorStatistics | None:
    """The colour statistics of an image, (H, W, 3) uint8; None if nothing is transferred."""
    if transfer is ColorTransfer.NONE:
        return None
    values = _to_space(image, transfer).reshape(-1, 3)
    return ColorStatistics(values.mean(axis=0), values.std(axis=0))


def transferred(image: Pixels, source: ColorStatistics | None, transfer: ColorTransfer) -> Pixels:
    """Shift and scale `image`, (H, W, 3) uint8, to the statistics of `source`; without `source` it stays unchanged."""
    if source is None:
        return image
    values = _to_space(image, transfer)
    mean, std = values.mean(axis=(0, 1)), values.std(axis=(0, 1))
    moved = (values - mean) * (source.std / np.maximum(std, 1e-4)) + source.mean
    return _from_space(moved.astype(np.float32), transfer)


def _to_space(image: Pixels, transfer: ColorTransfer) -> Floats:
    rgb: Floats = (image / 255).astype(np.float32)
    return lab_from_rgb(rgb) if transfer is ColorTransfer.LAB else rgb


def _from_space(values: Floats, transfer: ColorTransfer) -> Pixels:
    rgb = rgb_from_lab(values) if transfer is ColorTransfer.LAB else values
    return np.rint(np.clip(rgb, 0, 1) * 255).astype(np.uint8)


def lab_from_rgb(rgb: Floats) -> Floats:
    """(..., 3) sRGB in [0, 1] -> CIELAB, D65: L in [0, 100]."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    xyz = linear @ _XYZ_FROM_RGB.T
    f = np.where(xyz > _DELTA**3, np.cbrt(xyz), xyz / (3 * _DELTA**2) + 4 / 29)
    lab: Floats = (f @ _LAB_FROM_F.T - np.array([16, 0, 0])).astype(np.float32)
    return lab


def rgb_from_lab(lab: Floats) -> Floats:
    """The inverse of `lab_from_rgb`. Colours outside of sRGB give values outside of [0, 1]."""
    f = (lab + np.array([16, 0, 0])) @ np.linalg.inv(_LAB_FROM_F).T
    xyz = np.where(f > _DELTA, f**3, 3 * _DELTA**2 * (f - 4 / 29))
    linear = np.maximum(xyz @ np.linalg.inv(_XYZ_FROM_RGB).T, 0)
    rgb: Floats = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055).astype(np.float32)
    return rgb
