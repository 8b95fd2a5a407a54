"""Bytes of any image, honest or hostile, to RGB pixels."""

from __future__ import annotations

import codecs
import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

# Imported by name so that Image.open never searches for plugins (which would load all fifty).
from PIL import (  # noqa: F401
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from diffclean.data.item import ItemError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM")
_STARTS = (b"\xff\xd8\xff", b"\x89PNG", b"RIFF", b"BM", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"GIF8")
_ORIENTATION, _TILE_WIDTH, _TILE_LENGTH = 0x0112, 322, 323  # TIFF tags
_TURNED = (5, 6, 7, 8)
"""EXIF orientations whose width is the file's height."""

# Pillow's own limit is one global number for all threads; `Limits` is checked here, before any pixel is decoded.
Image.MAX_IMAGE_PIXELS = None
# Warnings about odd EXIF, palettes and the like: the pixels are what counts. `catch_warnings` is not thread-safe.
warnings.filterwarnings("ignore", module=r"PIL\.")


class DecodeError(ItemError):
    """These bytes are not an image that can be used; the message is a short reason."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The largest image that is decoded.

    Attributes:
        pixels: width times height.
        side: width, and height.
    """

    pixels: int = 100_000_000
    side: int = 65_535


def decode(data: bytes, limits: Limits | None = None) -> np.ndarray:
    """Decode one image as people see it: first frame, EXIF orientation applied, transparency over white.

    Sixteen-bit grey is scaled by 255/65535. 32-bit integers and floats say nowhere what white is: floats within 0..1
    have 1 as white, values within 0..255 are taken as they stand, within 0..65535 as sixteen bits, and anything else
    is stretched from its own least to its own greatest value.

    Args:
        data: a JPEG, PNG, WebP, BMP, TIFF, GIF or PPM/PGM/PBM file, whatever its name said.
        limits: None: the default `Limits`.

    Returns:
        (H, W, 3) uint8 RGB, contiguous. H and W are the source's size as seen, after orientation.

    Raises:
        DecodeError: empty, truncated, damaged, too large, or not an image at all. Nothing else escapes, whatever the
            bytes.
    """
    return decode_for(data, None, limits)[0]


def decode_for(data: bytes, side: int | None, limits: Limits | None = None) -> tuple[np.ndarray, tuple[int, int]]:
    """Decode an image that will be shrunk to a square of `side`, in a fraction of the time where it is much larger.

    A JPEG is decoded at a half, a quarter or an eighth of its size, the smallest that keeps two pixels for each one
    wanted (its DCT blocks are scaled, which also averages).

    Args:
        data: as for `decode`.
        side: of the square, in pixels. None: at full size.
        limits: None: the default `Limits`; they speak of the full size.

    Returns:
        (H, W, 3) uint8 RGB, perhaps smaller than the source, and the source's (width, height) as seen.

    Raises:
        DecodeError: as `decode`.
    """
    if not data:
        raise DecodeError("empty file")
    with _pillow_errors(data), Image.open(io.BytesIO(data), formats=FORMATS) as image:
        _check_size(image, limits or Limits())
        size = image.size
        if side is not None:
            image.draft(image.mode, (2 * side, 2 * side))
        image.load()
        pixels = _rgb(image)
        orientation = _orientation(image)
    upright = np.ascontiguousarray(_upright(pixels, orientation))
    return upright, (size[::-1] if orientation in _TURNED else size)


def size_of(data: bytes, limits: Limits | None = None) -> tuple[int, int]:
    """(width, height) from an image's header; EXIF orientation may still exchange the two.

    Raises:
        DecodeError: as `decode`, for what a header can say.
    """
    if not data:
        raise DecodeError("empty file")
    with _pillow_errors(data), Image.open(io.BytesIO(data), formats=FORMATS) as image:
        _check_size(image, limits or Limits())
        return image.size


def _check_size(image: Image.Image, limits: Limits) -> None:
    sizes = [image.size]
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        # A tile is decoded whole, however small the picture in it.
        sizes.append((int(image.tag_v2.get(_TILE_WIDTH, 1)), int(image.tag_v2.get(_TILE_LENGTH, 1))))
    for width, height in sizes:
        if width < 1 or height < 1:
            raise DecodeError(f"image of {width}x{height} pixels")
        if width * height > limits.pixels:
            raise DecodeError(f"image of {width}x{height} pixels; the limit is {limits.pixels}")
        if max(width, height) > limits.side:
            raise DecodeError(f"image of {width}x{height} pixels; the limit is {limits.side} a side")


def _rgb(image: Image.Image) -> np.ndarray:
    """Any Pillow mode to (H, W, 3) uint8."""
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        grey = _eight_bits(np.asarray(image), sixteen=image.mode != "F" and image.format in ("PNG", "PPM"))
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.has_transparency_data:
        colour = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", colour.size, "white"), colour)
    return np.array(image.convert("RGB"), dtype=np.uint8)


def _eight_bits(values: np.ndarray, sixteen: bool) -> np.ndarray:
    """(H, W) integers or floats to uint8; `sixteen`: 65535 is known to be white."""
    if sixteen or values.dtype.kind == "u":
        return ((values.astype(np.int32).clip(0, 65535) * 255 + 32767) // 65535).astype(np.uint8)
    if not np.isfinite(values).all():
        raise DecodeError("pixels that are not finite numbers")
    low, high = float(values.min()), float(values.max())
    if low < 0 or high > 65535:
        values = (values.astype(np.float64) - low) / ((high - low) or 1.0)
        high = 1.0
        scale = 255.0
    elif values.dtype.kind == "f" and high <= 1:
        scale = 255.0
    else:
        scale = 1.0 if high <= 255 else 255 / 65535
    return np.rint(values.astype(np.float64) * scale).astype(np.uint8)


def _orientation(image: Image.Image) -> int:
    # Read after load(): PNG may keep EXIF behind the pixels, and Pillow turns TIFF itself and then drops the tag.
    try:
        found = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # broken EXIF is common in honest photos and says nothing about the pixels
        return 1
    return found if isinstance(found, int) else 1


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Undo EXIF orientation 1..8 (other numbers mean nothing) on (H, W, 3)."""
    if orientation in _TURNED:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


@contextmanager
def _pillow_errors(data: bytes) -> Iterator[None]:
    """Whatever hostile bytes make Pillow raise is the file's fault: its parsers throw a dozen kinds of exception."""
    try:
        yield
    except DecodeError:
        raise
    except Image.UnidentifiedImageError:
        raise DecodeError(_not_an_image(data)) from None
    except MemoryError as error:
        raise DecodeError("needs more memory than there is") from error
    except Exception as error:
        text = " ".join(str(error).split())[:80]
        cut = "truncated" in text.lower() or isinstance(error, EOFError) or _is_short_webp(data)
        raise DecodeError("truncated file" if cut else f"damaged file ({text or type(error).__name__})") from error


def _not_an_image(data: bytes) -> str:
    if _is_short_webp(data):
        return "truncated file"
    if data.startswith(_STARTS):
        return "truncated or damaged header"
    head = data[:512]
    if all(byte >= 32 or byte in b"\t\n\r\f" for byte in head) and not _broken_utf8(head):
        return "not an image (text?)"
    return "not an image that can be read here (JPEG, PNG, WebP, BMP, TIFF, GIF, PPM)"


def _broken_utf8(head: bytes) -> bool:
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)  # incremental: a character cut at the end is no fault
    except UnicodeDecodeError:
        return True
    return False


def _is_short_webp(data: bytes) -> bool:
    return data[:4] == b"RIFF" and len(data) < 8 + int.from_bytes(data[4:8], "little")
