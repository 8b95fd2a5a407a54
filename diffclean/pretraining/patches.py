"""Patches of many kinds, and smooth fields: corruptions beyond the hard-edged rectangles of `corruptions`.

A network that has seen only rectangles learns to tell their hard edges from a trigger. Therefore these patches have odd
shapes, soft edges, all opacities, and contents from flat colours to pieces of other pictures. All of them are drawn at
random and generic: there is no sinusoid, no warp, no frequency pattern and no quantisation, which are the attacks that
the evidence relies on.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from diffclean.data.pixels import Pixels

Mask = NDArray[np.float32]
_FIELD_CELLS = (2, 6)
"""The number of cells across a smooth field: it has three swings at most, which is slower than the sinusoids in the
evidence."""


def smooth_field(height: int, width: int, channels: int, cells: int, rng: np.random.Generator) -> Mask:
    """(height, width, channels) float in [-1, 1]: random numbers on a grid of `cells` a side, interpolated."""
    grid = rng.uniform(-1, 1, (cells, cells, channels)).astype(np.float32)
    planes = [
        np.asarray(Image.fromarray(grid[..., c]).resize((width, height), Image.Resampling.BICUBIC))
        for c in range(channels)
    ]
    return np.clip(np.stack(planes, axis=-1), -1, 1)


def add_field(image: Pixels, rng: np.random.Generator) -> Pixels:
    """Brighten and darken smoothly, by up to a fifth of the range; in half of the cases without colour."""
    height, width = image.shape[:2]
    channels = 1 if rng.random() < 0.5 else 3
    field = smooth_field(height, width, channels, int(rng.integers(_FIELD_CELLS[0], _FIELD_CELLS[1] + 1)), rng)
    return np.clip(np.rint(image + 255 * rng.uniform(0.03, 0.2) * field), 0, 255).astype(np.uint8)


def paste_patches(image: Pixels, other: Pixels, rng: np.random.Generator) -> Pixels:
    """Put one to three patches on an image, each 4 to 40 % of a side, anywhere, also across the border.

    Args:
        image: (H, W, 3) uint8.
        other: (H, W, 3) uint8, a picture from which pieces are taken.
        rng: the only source of randomness.
    """
    side = min(image.shape[:2])
    painted = image.astype(np.float32)
    for _ in range(int(rng.integers(1, 4))):
        # Squaring a uniform number makes small patches more frequent.
        height, width = (max(2, round(side * (0.04 + 0.36 * rng.random() ** 2))) for _ in range(2))
        in_corner = rng.random() < 0.25
        top = _place(height, image.shape[0], in_corner, rng)
        left = _place(width, image.shape[1], in_corner, rng)
        opacity = 1.0 if rng.random() < 0.5 else rng.uniform(0.2, 1.0)
        shape = opacity * patch_mask(height, width, rng)[..., None]
        content = patch_content(height, width, image, other, rng)
        there = slice(max(top, 0), top + height), slice(max(left, 0), left + width)
        here = slice(max(-top, 0), None), slice(max(-left, 0), None)
        below = painted[there]
        cut = slice(0, below.shape[0]), slice(0, below.shape[1])
        shape, content = shape[here][cut], content[here][cut]
        painted[there] = (1 - shape) * below + shape * content
    return np.rint(painted).astype(np.uint8)


def _place(length: int, extent: int, in_corner: bool, rng: np.random.Generator) -> int:
    """The position of a patch of `length` pixels along a side of `extent`, which may reach beyond its ends."""
    if not in_corner:
        return int(rng.integers(-length // 2, extent - length // 2))
    gap = int(rng.integers(0, 1 + extent // 16))
    return gap if rng.random() < 0.5 else extent - length - gap


def patch_mask(height: int, width: int, rng: np.random.Generator) -> Mask:
    """(height, width) float in [0, 1]: a rectangle, an ellipse, a polygon or a blob; half of them have soft edges."""
    kind = rng.random()
    drawn = Image.new("L", (width, height), 255 if kind < 0.3 else 0)
    pen = ImageDraw.Draw(drawn)
    if 0.3 <= kind < 0.5:
        pen.ellipse((0, 0, width - 1, height - 1), fill=255)
    elif 0.5 <= kind < 0.75:
        angles = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(3, 9))))
        reach = rng.uniform(0.3, 1.0, len(angles)) / 2
        corners = zip(width * (0.5 + reach * np.cos(angles)), height * (0.5 + reach * np.sin(angles)), strict=True)
        pen.polygon([(float(x), float(y)) for x, y in corners], fill=255)
    elif kind >= 0.75:
        blob = smooth_field(height, width, 1, 4, rng)[..., 0]
        drawn = Image.fromarray(np.where(blob > np.quantile(blob, 0.5), 255, 0).astype(np.uint8))
    if rng.random() < 0.5:
        drawn = drawn.filter(ImageFilter.GaussianBlur(rng.uniform(0.02, 0.2) * min(height, width)))
    mask: Mask = np.asarray(drawn, dtype=np.float32) / np.float32(255)
    return mask


def patch_content(height: int, width: int, image: Pixels, other: Pixels, rng: np.random.Generator) -> Pixels:
    """(height, width, 3) uint8: a flat colour, random cells, a texture, or a piece of a picture."""
    kind = rng.random()
    if kind < 0.25:
        return flat_content(height, width, rng)
    if kind < 0.5:
        return random_content(height, width, rng)
    if kind < 0.75:
        return _texture(height, width, rng)
    # This is a piece of the other picture, or of the same one from another place.
    source = other if kind < 0.9 else image
    top = int(rng.integers(0, source.shape[0] - min(height, source.shape[0]) + 1))
    left = int(rng.integers(0, source.shape[1] - min(width, source.shape[1]) + 1))
    return source[top : top + height, left : left + width]


def _texture(height: int, width: int, rng: np.random.Generator) -> Pixels:
    """Two colours, mixed or separated by a smooth field; with two cells along a side the field is a slope."""
    share = (1 + smooth_field(height, width, 1, int(rng.integers(2, 9)), rng)) / 2
    if rng.random() < 0.5:
        share = (share > 0.5).astype(np.float32)
    one, two = rng.integers(0, 256, (2, 3))
    return np.rint(share * one + (1 - share) * two).astype(np.uint8)


def random_content(height: int, width: int, rng: np.random.Generator) -> Pixels:
    """(height, width, 3) uint8 of random cells one to four pixels wide: grey, coloured, or black and white."""
    cell = int(rng.integers(1, 5))
    channels = 1 if rng.random() < 0.5 else 3
    rows, columns = -(-height // cell), -(-width // cell)
    cells = rng.integers(0, 256, (rows, columns, channels))
    if rng.random() < 0.5:
        cells = np.where(cells < 128, 0, 255)
    content = cells.repeat(cell, axis=0).repeat(cell, axis=1)[:height, :width]
    return np.broadcast_to(content, (height, width, 3)).astype(np.uint8)


def flat_content(height: int, width: int, rng: np.random.Generator) -> Pixels:
    """(height, width, 3) uint8 of one colour; black and white are as likely as all others together."""
    colour = rng.choice([0, 255]) if rng.random() < 0.5 else rng.integers(0, 256, 3)
    return np.broadcast_to(np.asarray(colour), (height, width, 3)).astype(np.uint8)
