"""Fit images into a model's square and undo it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from PIL import Image

from diffclean.errors import UsageError

LONGEST_SIDE = 10_000
"""The largest number that an output size can be. At 10000 x 10000, an image is 300 MB of pixels."""


class Fit(StrEnum):
    """How an image of any shape is made square."""

    SQUASH = "squash"
    """Both sides are resized independently; the original shape is restored in the output."""
    CROP = "crop"
    """The centre square is kept. What lies outside is neither regenerated nor pasted back: the output is the crop."""
    PAD = "pad"
    """The shape is kept and the pixels at the edges are repeated around it; the padding is cut off in the output."""


@dataclass(frozen=True, slots=True)
class Placement:
    """How one image was placed in the square: enough to undo it on a square of any size.

    Attributes:
        fit: how the image was made square.
        width: the width of the source image in pixels.
        height: the height of the source image in pixels.
    """

    fit: Fit
    width: int
    height: int

    @property
    def kept(self) -> tuple[int, int]:
        """(width, height) of the part of the source that the square shows: all of it, or a crop's centre square."""
        side = min(self.width, self.height)
        return (side, side) if self.fit is Fit.CROP else (self.width, self.height)

    def own(self, size: int) -> tuple[float, float]:
        """(down, across): how many pixels of the source lie along each side of a square of `size`; at most `size`.

        A small source that was enlarged has fewer pixels than the square, and each of its pixels covers more than one
        of the square's.
        """
        left, top, right, bottom = self.content(size)
        width, height = self.kept
        return min(size, size * height / (bottom - top)), min(size, size * width / (right - left))

    def content(self, size: int) -> tuple[int, int, int, int]:
        """(left, top, right, bottom) of the image inside a square of `size`; all of it unless padded."""
        if self.fit is not Fit.PAD:
            return 0, 0, size, size
        width, height = scaled(self.width, self.height, size)
        left, top = (size - width) // 2, (size - height) // 2
        return left, top, left + width, top + height


@dataclass(frozen=True, slots=True)
class OutputSize:
    """The size of an output image.

    `source`: the size of the source image (for a crop, the size of the crop). `native`: the model's square as it is,
    including padding. A number: the longer side in pixels, with the shape kept (for a crop, N x N).
    """

    longest: int | None = None
    native: bool = False

    @classmethod
    def parse(cls, text: str) -> OutputSize:
        """Parse `source`, `native` or a number from 1 to 10000.

        Raises:
            UsageError: `text` is anything else.
        """
        if text in ("source", "native"):
            return cls(native=text == "native")
        if text.isascii() and text.isdigit() and len(text) < 8 and 1 <= int(text) <= LONGEST_SIDE:
            return cls(longest=int(text))
        raise UsageError(f"The size {text!r} must be source, native, or a number from 1 to {LONGEST_SIDE}.")

    def __str__(self) -> str:
        return "native" if self.native else "source" if self.longest is None else str(self.longest)


def to_square(image: np.ndarray, size: int, fit: Fit) -> tuple[np.ndarray, Placement]:
    """Fit an image into the model's square (Lanczos).

    Args:
        image: (H, W, 3) uint8.
        size: the side of the square in pixels.
        fit: how the image is made square.

    Returns:
        (size, size, 3) uint8, and the placement that `from_square` needs.
    """
    _check(image)
    height, width = image.shape[:2]
    placement = Placement(fit, width, height)
    if fit is Fit.CROP:
        side = min(width, height)
        top, left = (height - side) // 2, (width - side) // 2
        image = image[top : top + side, left : left + side]
    left, top, right, bottom = placement.content(size)
    inner = shrunk(image, right - left, bottom - top)
    if fit is Fit.PAD:
        inner = np.pad(inner, ((top, size - bottom), (left, size - right), (0, 0)), mode="edge")
    return inner, placement


def from_square(square: np.ndarray, placement: Placement, out_size: OutputSize) -> np.ndarray:
    """Undo `to_square` (bicubic if the image is enlarged); what a crop left out does not come back.

    Args:
        square: (S, S, 3) uint8; S may differ from the size of the input (a model may take 224 and return 512).
        placement: the placement that `to_square` returned.
        out_size: the output size.

    Returns:
        (h, w, 3) uint8.
    """
    _check(square)
    size = square.shape[0]
    if square.shape[1] != size:
        raise ValueError(f"expected a square, found {square.shape}")
    if out_size.native:
        return square
    left, top, right, bottom = placement.content(size)
    width, height = placement.kept
    if out_size.longest is not None:
        width, height = scaled(width, height, out_size.longest)
    return restored(square[top:bottom, left:right], width, height)


def scaled(width: int, height: int, longest: int) -> tuple[int, int]:
    """The (width, height) of an image whose longer side becomes `longest`; each is at least one pixel."""
    most = max(width, height)
    return max(1, round(width * longest / most)), max(1, round(height * longest / most))


def restored(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """Resize (h, w, 3) uint8: bicubic if both sides grow, otherwise Lanczos."""
    grows = height > image.shape[0] and width > image.shape[1]
    return (_enlarged if grows else shrunk)(image, width, height)


def shrunk(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """Resize (h, w, 3) uint8 (Lanczos); an image that already has the size is returned itself."""
    if image.shape[:2] == (height, width):
        return image
    pixels = Image.fromarray(np.ascontiguousarray(image))
    # With the gap, a much larger image is averaged down first: many times faster, and hardly a grey level different.
    return np.array(pixels.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0), dtype=np.uint8)


def _enlarged(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """Enlarge with torch's bicubic filter.

    It takes a quarter of the time of Pillow's Lanczos, and the results hardly differ.
    """
    import torch

    pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None]
    enlarged = torch.nn.functional.interpolate(pixels, (height, width), mode="bicubic", antialias=True)
    return enlarged[0].permute(1, 2, 0).contiguous().numpy()


def _check(image: np.ndarray) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ValueError(f"expected (H, W, 3) uint8, found {image.shape} {image.dtype}")
