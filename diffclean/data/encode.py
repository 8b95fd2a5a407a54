"""Encode RGB pixels as a file.

The same pixels always give the same bytes, and the file holds nothing but the pixels.
"""

from __future__ import annotations

import io
from enum import StrEnum
from typing import Any

import numpy as np
from PIL import Image

from diffclean.data.item import ItemError
from diffclean.data.png import png_from_pixels

JPEG_QUALITY = 95


class ImageFormat(StrEnum):
    """The file formats that diffclean writes."""

    PNG = "png"
    """Lossless and fast: see `png`."""
    WEBP = "webp"
    """Lossless, smaller, slower; at most 16383 pixels a side."""
    JPEG = "jpeg"
    """Lossy; used only if the user asks for it."""

    @property
    def extension(self) -> str:
        """The file extension, without the dot."""
        return "jpg" if self is ImageFormat.JPEG else self.value


_LONGEST = {ImageFormat.PNG: 2**31 - 1, ImageFormat.WEBP: 16_383, ImageFormat.JPEG: 65_500}


def encode(image: np.ndarray, format: ImageFormat = ImageFormat.PNG, *, quality: int | None = None) -> bytes:
    """Encode one image.

    Args:
        image: (H, W, 3) uint8 RGB.
        format: the file format; PNG and WebP keep every pixel exactly.
        quality: 1..100, for JPEG only; None: 95.

    Raises:
        ItemError: a side of the image has more pixels than the format allows.
        ValueError: `image` or `quality` is not as described above.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ValueError(f"expected (H, W, 3) uint8, found {image.shape} {image.dtype}")
    options: dict[str, Any]
    if format is ImageFormat.JPEG:
        quality = JPEG_QUALITY if quality is None else quality
        if not 1 <= quality <= 100:
            raise ValueError(f"expected a JPEG quality of 1..100, found {quality}")
        options = {"quality": quality, "subsampling": "4:4:4"}
    elif quality is not None:
        raise ValueError(f"{format} is lossless and takes no quality")
    else:
        options = {"lossless": True, "quality": 50, "method": 2}
    longest = max(image.shape[:2])
    if longest > _LONGEST[format]:
        raise ItemError(f"{longest} pixels a side; {format} allows {_LONGEST[format]} (png allows any)")
    if format is ImageFormat.PNG:
        return png_from_pixels(np.ascontiguousarray(image))
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(file, format=format.value, **options)
    return file.getvalue()
