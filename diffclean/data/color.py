"""Interpret the samples of an image as colours and convert them to sRGB over white."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from PIL import Image, ImageChops, ImageCms

from diffclean.data.limits import DecodeError

_STRIP_PIXELS = 2**20
"""The number of pixels converted at a time, so that intermediate memory does not grow with the image."""
_WIDE = ("I", "F")
_CACHED_BYTES = 4 * 2**20
_SPACES = {"RGB": "RGB ", "L": "GRAY", "CMYK": "CMYK", "LAB": "Lab "}
_SAME = 2
"""In grey levels. A profile that changes no colour by more than this is sRGB, which profiles describe in many ways."""
_DISPLAY_EXPONENT = 2.2


@dataclass(frozen=True, slots=True)
class Primaries:
    """A colour space whose white is that of sRGB (D65).

    `xy` holds x and y of red, green and blue. If `exponent` is None, samples become light by the curve of sRGB;
    otherwise light = sample ** exponent.
    """

    xy: tuple[float, float, float, float, float, float]
    exponent: float | None = None


SRGB_XY = (0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
ADOBE_RGB = Primaries((0.64, 0.33, 0.21, 0.71, 0.15, 0.06), 563 / 256)
_D65 = (0.3127, 0.3290)
_XY = {
    1: SRGB_XY,
    2: SRGB_XY,  # unspecified
    5: (0.64, 0.33, 0.29, 0.60, 0.15, 0.06),
    6: (0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    7: (0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    9: (0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
    12: (0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
}
"""ITU-T H.273, table 2."""
_EXPONENT: dict[int, float | None] = {1: None, 2: None, 6: None, 13: None, 14: None, 15: None, 4: 2.2, 5: 2.8, 8: 1.0}
"""ITU-T H.273, table 3. Television curves (1, 6, 14, 15) are treated as the curve of sRGB, as other viewers do."""
_HIGH_RANGE = {16: "PQ", 18: "HLG"}


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a file says about its samples that Pillow does not apply.

    Attributes:
        transparent: the one value, or the (R, G, B), that is transparent, in samples of `bits` bits.
        bits: the bits per sample if they differ from what Pillow's mode says, otherwise None.
        inverted: whether zero is white.
        signed: whether samples of eight bits range from -128 to 127.
        unsigned: whether samples of 32 bits range from 0 to 2^32 - 1.
        profile: the ICC profile, or None if there is none.
        gamma: the value of PNG's gAMA chunk, or None if there is none.
        primaries: the colour space, or None for the primaries and the curve of sRGB.
        no_alpha: whether the channel that looks like alpha has no meaning.
    """

    transparent: tuple[int, ...] | None = None
    bits: int | None = None
    inverted: bool = False
    signed: bool = False
    unsigned: bool = False
    profile: bytes | None = None
    gamma: float | None = None
    primaries: Primaries | None = None
    no_alpha: bool = False


_PLAIN = Meaning()


def primaries_from_cicp(primaries: int, transfer: int) -> Primaries | None:
    """Convert code points of ITU-T H.273 to a colour space; None stands for sRGB.

    Raises:
        DecodeError: the image has a high dynamic range, whose white is not a grey level, or unknown code points.
    """
    if transfer in _HIGH_RANGE:
        raise DecodeError(f"not supported here (high dynamic range, {_HIGH_RANGE[transfer]}): convert it to sRGB first")
    if primaries not in _XY or transfer not in _EXPONENT:
        raise DecodeError(f"not supported here (colour primaries {primaries} with transfer {transfer} of H.273)")
    found = Primaries(_XY[primaries], _EXPONENT[transfer])
    return None if found == Primaries(SRGB_XY) else found


def rgb_over_white(image: Image.Image, meaning: Meaning) -> np.ndarray:
    """Convert a loaded Pillow image of any mode to (H, W, 3) uint8 sRGB, with transparency over white.

    Raises:
        DecodeError: diffclean does not know what the samples mean.
    """
    if image.mode in _WIDE or image.mode.startswith("I;"):
        values = np.asarray(image)
        if meaning.bits is None and image.format == "PNG":
            meaning = replace(meaning, bits=16)
        pixels = rgb_from_grey(values.view(np.uint32) if meaning.unsigned else values, meaning)
        return over_white(pixels, None if meaning.transparent is None else values == meaning.transparent[0])
    if meaning.signed:
        return rgb_from_grey(np.asarray(image).view(np.int8), meaning)
    if image.mode == "RGB" and meaning == _PLAIN and not image.has_transparency_data:
        return np.array(image, dtype=np.uint8)
    width, height = image.size
    rows = max(1, _STRIP_PIXELS // width)
    out = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, rows):
        bottom = min(height, top + rows)
        whole = top == 0 and bottom == height
        out[top:bottom] = _strip(image if whole else image.crop((0, top, width, bottom)), meaning)
    return out


def rgb_from_grey(values: np.ndarray, meaning: Meaning) -> np.ndarray:
    """Convert (H, W) integers or floats to (H, W, 3) uint8 sRGB.

    If the format says which value is white (`meaning.bits`), this value is used. For 32-bit integers and floats no
    format says it. Floats within 0..1 then have 1 as white, values within 0..255 are taken as they are, values within
    0..65535 as sixteen bits, and all others are stretched from the smallest to the largest value in the image.
    """
    if (values.dtype.kind == "u" and values.dtype.itemsize == 2) or meaning.bits is not None:
        grey = scaled(values, 2 ** (meaning.bits or 16) - 1, meaning.gamma)
    else:
        grey = _stretched(values)
    if meaning.inverted:
        grey = 255 - grey
    found = np.array(_in_srgb(Image.fromarray(grey), meaning.profile))
    return found if found.ndim == 3 else np.repeat(found[:, :, None], 3, axis=2)


def over_white(pixels: np.ndarray, hidden: np.ndarray | None) -> np.ndarray:
    """Make the pixels of (H, W, 3) uint8 white where an (H, W) bool mask is true."""
    if hidden is not None:
        pixels[hidden] = 255
    return pixels


def scaled(values: np.ndarray, most: int, gamma: float | None = None) -> np.ndarray:
    """Scale integers to uint8, rounded to the nearest. `most` (below 2^32) is white; larger values become white too."""
    if most == 255 and gamma is None:
        return values.astype(np.uint8)
    if most <= 65535:  # use a table: it is fast, and the curve is applied before the precision is lost
        table = (np.arange(most + 1, dtype=np.int64) * 255 + most // 2) // most
        if gamma is not None:
            table = np.rint(255 * (np.arange(most + 1) / most) ** (1 / (gamma * _DISPLAY_EXPONENT)))
        return table.astype(np.uint8)[np.clip(values, 0, most)]
    return ((values.astype(np.uint64) * 255 + most // 2) // most).astype(np.uint8)


def _stretched(values: np.ndarray) -> np.ndarray:
    """Scale (H, W) values whose white is not specified."""
    if not np.isfinite(values).all():
        raise DecodeError("pixels that are not finite numbers")
    low, high = float(values.min()), float(values.max())
    if low < 0 or high > 65535:
        shift, width, scale = low, (high - low) or 1.0, 255.0
    else:
        shift, width = 0.0, 1.0
        scale = 255.0 if values.dtype.kind == "f" and high <= 1 else 1.0 if high <= 255 else 255 / 65535
    out = np.empty(values.shape, np.uint8)
    rows = max(1, _STRIP_PIXELS // values.shape[1])
    for top in range(0, len(values), rows):
        out[top : top + rows] = np.rint((values[top : top + rows].astype(np.float64) - shift) / width * scale)
    return out


def _strip(image: Image.Image, meaning: Meaning) -> np.ndarray:
    """Convert some rows of an image with eight bits per sample."""
    if image.mode == "La":
        image = image.convert("LA")
    elif meaning.inverted:
        image = ImageChops.invert(image.convert("L"))
    hidden = _hidden(image, meaning)
    alpha: Image.Image | None = None
    if image.has_transparency_data and not meaning.no_alpha:
        image = image.convert("RGBA") if image.mode not in ("LA", "RGBA") else image
        alpha = image.getchannel("A")
        alpha = None if alpha.getextrema() == (255, 255) else alpha
    if image.mode in ("LA", "RGBA", "1") or image.mode not in _SPACES:
        image = image.convert("L" if image.mode in ("LA", "1") else "RGB")
    converted = _in_srgb(image, meaning.profile)
    if converted.mode != "RGB":
        converted = converted.convert("RGB")
    if meaning.gamma is not None or meaning.primaries is not None:
        converted = Image.fromarray(_by_curve(np.asarray(converted), meaning))
    if alpha is not None:
        converted.putalpha(alpha)
        converted = Image.alpha_composite(Image.new("RGBA", converted.size, "white"), converted).convert("RGB")
    return over_white(np.array(converted, dtype=np.uint8), hidden)


def _hidden(image: Image.Image, meaning: Meaning) -> np.ndarray | None:
    """(H, W) bool, the pixels that have the transparent colour."""
    if meaning.transparent is None:
        return None
    if image.mode == "1":
        return np.asarray(image) == bool(meaning.transparent[0])
    most = 2 ** (meaning.bits or 8) - 1
    wanted = [value * 255 // most for value in meaning.transparent]  # exactly how Pillow widens fewer bits to eight
    found = np.asarray(image)
    return found == wanted[0] if found.ndim == 2 else (found == wanted).all(axis=2)


def _by_curve(pixels: np.ndarray, meaning: Meaning) -> np.ndarray:
    """Convert (H, W, 3) uint8 with a gamma or primaries of its own to sRGB."""
    space = meaning.primaries
    if space is None:
        assert meaning.gamma is not None
        # PNG specification, 13.13: the exponent that decodes for a display of exponent 2.2.
        table = np.rint(255 * (np.arange(256) / 255) ** (1 / (meaning.gamma * _DISPLAY_EXPONENT)))
        return table.astype(np.uint8)[pixels]
    steps = np.arange(256) / 255
    light = (_light(steps) if space.exponent is None else steps**space.exponent).astype(np.float32)
    matrix = np.linalg.inv(_to_xyz(SRGB_XY)) @ _to_xyz(space.xy)
    mixed = np.clip(light[pixels] @ matrix.T.astype(np.float32), 0, 1)
    samples = np.arange(4096 * 4) / (4096 * 4 - 1)
    encoded = np.where(samples <= 0.0031308, 12.92 * samples, 1.055 * samples ** (1 / 2.4) - 0.055)
    return np.rint(255 * encoded).astype(np.uint8)[np.rint(mixed * (4096 * 4 - 1)).astype(np.int32)]


def _light(samples: np.ndarray) -> np.ndarray:
    """The curve of sRGB (IEC 61966-2-1) from samples in 0..1 to light."""
    return np.where(samples <= 0.04045, samples / 12.92, ((samples + 0.055) / 1.055) ** 2.4)


def _to_xyz(xy: tuple[float, ...]) -> np.ndarray:
    """The (3, 3) matrix from RGB light to XYZ, for white D65."""
    columns = np.array([[x / y, 1.0, (1 - x - y) / y] for x, y in zip(xy[::2], xy[1::2], strict=True)]).T
    white = np.array([_D65[0] / _D65[1], 1.0, (1 - sum(_D65)) / _D65[1]])
    return columns * np.linalg.solve(columns, white)


def _in_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Convert L, RGB, CMYK or LAB to RGB with the ICC profile; unchanged if the profile is for another mode."""
    if profile is None:
        return image
    find = _transform if len(profile) <= _CACHED_BYTES else _transform.__wrapped__
    transform = find(profile, image.mode)
    if transform is None:
        return image
    return transform.apply(image)


@lru_cache(maxsize=16)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """The transform from a profile to sRGB.

    It is None if the profile is sRGB, is for another mode, or is damaged; the pixels then stay as they are.
    """
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if source.profile.xcolor_space != _SPACES[mode]:
            return None
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
        if mode == "RGB":
            probe = _probe()
            moved = np.abs(np.asarray(transform.apply(probe)).astype(int) - np.asarray(probe))
            return None if moved.max() <= _SAME else transform
        if mode == "L":
            ramp = Image.fromarray(np.arange(256, dtype=np.uint8)[None])
            moved = np.abs(np.asarray(transform.apply(ramp)).astype(int) - np.arange(256)[None, :, None])
            return None if moved.max() <= _SAME else transform
        return transform
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None


@lru_cache(maxsize=1)
def _probe() -> Image.Image:
    levels = np.arange(0, 256, 51, dtype=np.uint8)
    grid = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(1, -1, 3)
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    return Image.fromarray(np.concatenate([grid, ramp], axis=1))
