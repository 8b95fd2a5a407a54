"""How an image meets the model's square, and how it goes back."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from PIL import Image

from diffclean.errors import UsageError

LONGEST_SIDE = 10_000
"""The largest `N` of an output size; at 10000 x 10000 an image is 300 MB of pixels."""


class Fit(StrEnum):
    """How an image of any shape becomes a square."""

    SQUASH = "squash"
    """Both sides are resized; the shape is undone on the way out."""
    CROP = "crop"
    """The centre square is kept. What lay outside is not regenerated and never pasted back: the output is the crop."""
    PAD = "pad"
    """The shape is kept and the edge pixels are repeated around it; the padding is cut off on the way out."""


@dataclass(frozen=True, slots=True)
class Placement:
    """What was done to one image: enough to undo it on a square of any size.

    Attributes:
        fit: how it met the square.
        width: of the source image, in pixels.
        height: of the source image, in pixels.
    """

    fit: Fit
    width: int
    height: int

    @property
    def kept(self) -> tuple[int, int]:
        """(width, height) of what the square shows of the source: all of it, or for a crop its centre square."""
        side = min(self.width, self.height)
        return (side, side) if self.fit is Fit.CROP else (self.width, self.height)

    def own(self, size: int) -> tuple[float, float]:
        """How many pixels of its own the source has across a square of `size`: (down, across); at most `size`.

        A small source that was enlarged has fewer than the square, and its own pixels are larger than the square's.
        """
        left, top, right, bottom = self.content(size)
        width, height = self.kept
        return min(size, size * height / (bottom - top)), min(size, size * width / (right - left))

    def content(self, size: int) -> tuple[int, int, int, int]:
        """(left, top, right, bottom) of the picture inside a square of `size`; all of it unless padded."""
        if self.fit is not Fit.PAD:
            return 0, 0, size, size
        width, height = scaled(self.width, self.height, size)
        left, top = (size - width) // 2, (size - height) // 2
        return left, top, left + width, top + height


@dataclass(frozen=True, slots=True)
class OutputSize:
    """The size at which an image comes out.

    `source`: its own size (for a crop, the crop's own size). `native`: the model's square as it is, padding included.
    A number: its longest side, its shape kept (for a crop, N x N).
    """

    longest: int | None = None
    native: bool = False

    @classmethod
    def parse(cls, text: str) -> OutputSize:
        """`source`, `native` or a number from 1 to 10000.

        Raises:
            UsageError: anything else.
        """
        if text in ("source", "native"):
            return cls(native=text == "native")
        if text.isascii() and text.isdigit() and len(text) < 8 and 1 <= int(text) <= LONGEST_SIDE:
            return cls(longest=int(text))
        raise UsageError(f"The size {text!r} should be source, native, or a number from 1 to {LONGEST_SIDE}.")

    def __str__(self) -> str:
        return "native" if self.native else "source" if self.longest is None else str(self.longest)


def to_square(image: np.ndarray, size: int, fit: Fit) -> tuple[np.ndarray, Placement]:
    """Fit an image into the model's square (Lanczos).

    Args:
        image: (H, W, 3) uint8.
        size: the side of the square in pixels.
        fit: how.

    Returns:
        (size, size, 3) uint8, and what `from_square` needs.
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
    """Undo `to_square` (bicubic where the picture grows), except for what a crop left out.

    Args:
        square: (S, S, 3) uint8; S need not be the size that went in (a model may see 224 and paint 512).
        placement: from `to_square`.
        out_size: the size wanted.

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
    """The (width, height) that a picture has when its longer side is `longest`; at least one pixel each."""
    most = max(width, height)
    return max(1, round(width * longest / most)), max(1, round(height * longest / most))


def restored(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """(h, w, 3) uint8 at another size: bicubic where both sides grow, else Lanczos."""
    grows = height > image.shape[0] and width > image.shape[1]
    return (_enlarged if grows else shrunk)(image, width, height)


def shrunk(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """(h, w, 3) uint8 at another size (Lanczos); the image itself where it has that size."""
    if image.shape[:2] == (height, width):
        return image
    pixels = Image.fromarray(np.ascontiguousarray(image))
    # The gap lets a much larger image be averaged down first: many times faster, hardly a grey level apart.
    return np.array(pixels.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0), dtype=np.uint8)


def _enlarged(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """Bicubic, by torch: a quarter of the time of Pillow's Lanczos, from which enlarged pictures hardly differ."""
    import torch

    pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None]
    enlarged = torch.nn.functional.interpolate(pixels, (height, width), mode="bicubic", antialias=True)
    return enlarged[0].permute(1, 2, 0).contiguous().numpy()


def _check(image: np.ndarray) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ValueError(f"expected (H, W, 3) uint8, found {image.shape} {image.dtype}")
