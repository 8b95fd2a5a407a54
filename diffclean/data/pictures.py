"""Open one encoded image, so that its size is known before its pixels are decoded."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

# Imported by name so that opening never searches for plugins (which would load all fifty).
from PIL import (  # noqa: F401
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    IcoImagePlugin,
    Image,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PcxImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    QoiImagePlugin,
    SgiImagePlugin,
    TgaImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from diffclean.data.color import ADOBE_RGB, Meaning, primaries_from_cicp, rgb_from_grey, rgb_over_white, scaled
from diffclean.data.containers import box_colour, largest_icon
from diffclean.data.formats import HEIF, heif_is_there, is_short_webp
from diffclean.data.limits import DecodeError, Limits, jpeg_header, webp_size
from diffclean.data.netpbm import netpbm_header, netpbm_values
from diffclean.data.png_chunks import COLOUR, png_parts
from diffclean.data.tiff import check_directory, tiff_meaning, tile_size, why_no_tiff

_ORIENTATION, _EXIF_IFD, _COLOR_SPACE, _INTEROP_IFD = 0x0112, 0x8769, 0xA001, 0xA005
_TURNED = (5, 6, 7, 8)
"""The EXIF orientations that swap width and height."""
_BYTES_A_PIXEL = {"1": 1, "L": 1, "P": 1}
"""The bytes per pixel in Pillow's memory; all other modes need four. Our own RGB needs three more."""
_DECODER_BYTES_A_PIXEL = {"WEBP": 16, "AVIF": 16, HEIF: 16, "JPEG2000": 20, "TIFF": 8, "JPEG": 6}
"""The bytes per pixel that the decoder itself needs in addition."""
_UNSUPPORTED = re.compile(r"un(supported|known|recogni[sz]ed)|not (yet )?support|cannot (handle|load|read this)", re.I)

# Pillow's own limit is one global number for all threads; `Limits` is checked here, before any pixel is decoded.
Image.MAX_IMAGE_PIXELS = None
# Hide warnings about odd EXIF, palettes and the like: only the pixels count. `catch_warnings` is not thread-safe.
warnings.filterwarnings("ignore", module=r"PIL\.")
AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # there are many reader threads already


@dataclass(frozen=True)
class Picture:
    """An open image.

    Attributes:
        size: (width, height) as people see it.
        bytes: about how much memory decoding needs at most.
        rgb: side -> (H, W, 3) uint8 sRGB over white, upright. The image is decoded at a half, a quarter or an eighth of
            its size if that keeps two pixels for each pixel of a square of `side`; None: at full size.
    """

    size: tuple[int, int]
    bytes: int
    rgb: Callable[[int | None], np.ndarray]


@contextmanager
def opened(data: bytes, kind: str, limits: Limits) -> Iterator[Picture]:
    """Open an image. Any error inside the block is reported as a fault of the file.

    Args:
        data: the bytes of the file.
        kind: the format, as `formats.sniffed` returns it.
        limits: limits on the full size.

    Raises:
        DecodeError: the file is truncated, damaged, too large, or of a kind that is not supported.
    """
    with _as_decode_errors(data, kind):
        if kind == "ICO":
            kind, data = largest_icon(data, limits)
        if kind == "PPM":
            yield _netpbm(data, limits)
            return
        with _of_pillow(data, kind, limits) as picture:
            yield picture


def _netpbm(data: bytes, limits: Limits) -> Picture:
    header = netpbm_header(data)
    limits.check(header.width, header.height)

    def rgb(side: int | None) -> np.ndarray:
        values = netpbm_values(data, header)
        if header.kind in "fF":
            grey = rgb_from_grey(values.reshape(header.height, -1), Meaning())[:, :, 0]
            levels = grey.reshape(values.shape)
        else:
            levels = scaled(values, int(header.most))
        return np.ascontiguousarray(np.broadcast_to(levels, (header.height, header.width, 3)))

    pixels = header.width * header.height
    return Picture((header.width, header.height), pixels * (40 if header.kind in "123" else 8) * header.channels, rgb)


@contextmanager
def _of_pillow(data: bytes, kind: str, limits: Limits) -> Iterator[Picture]:
    meaning, exif = Meaning(), b""
    if kind == "PNG":
        data, meaning, exif = _png(data, limits)
    elif kind == "WEBP" and (canvas := webp_size(data)):
        limits.check(*canvas)
    elif kind == "TIFF":
        check_directory(data)
    elif kind == HEIF and not heif_is_there():
        raise DecodeError("not an image that can be read here without an extra (HEIC): pip install 'diffclean[heic]'")
    # For a JPEG, avoid the class that Pillow registers: it looks for further images, and an error there loses the
    # first.
    factory = JpegImagePlugin.JpegImageFile if kind == "JPEG" else Image.OPEN[kind][0]
    with factory(io.BytesIO(data), "") as image:
        limits.check(*image.size)
        if isinstance(image, TiffImagePlugin.TiffImageFile):
            limits.check(*tile_size(image))
        if kind != "PNG":
            meaning = _meaning(image, kind, data)
        width, height = image.size
        needed = width * height * (_BYTES_A_PIXEL.get(image.mode, 4) + 3 + _DECODER_BYTES_A_PIXEL.get(kind, 0))

        def rgb(side: int | None) -> np.ndarray:
            if side is not None:
                image.draft(image.mode, (2 * side, 2 * side))
            image.load()
            return upright(rgb_over_white(image, meaning), _orientation(image, exif))

        # Pillow applies the orientation of a TIFF when it decodes it, and its size already accounts for that.
        turned = kind != "TIFF" and _orientation(image, exif) in _TURNED
        yield Picture((height, width) if turned else (width, height), needed, rgb)


def _png(data: bytes, limits: Limits) -> tuple[bytes, Meaning, bytes]:
    parts = png_parts(data)
    limits.check(parts.width, parts.height)
    if parts.transparent and parts.colour_type == COLOUR and parts.bits == 16:
        raise DecodeError(
            "not supported here (PNG of 16 bits with a transparent colour): save it with an alpha channel"
        )
    meaning = Meaning(
        transparent=parts.transparent,
        bits=parts.bits if parts.colour_type == 0 else None,
        profile=None if parts.cicp else parts.profile,
        gamma=parts.gamma if parts.gamma and abs(parts.gamma * 2.2 - 1) > 0.05 else None,
        primaries=primaries_from_cicp(*parts.cicp) if parts.cicp else None,
    )
    return parts.picture, meaning, parts.exif


def _meaning(image: Image.Image, kind: str, data: bytes) -> Meaning:
    if kind == "TIFF":
        assert isinstance(image, TiffImagePlugin.TiffImageFile)
        return tiff_meaning(image)
    if kind == "TGA":
        # The header says how many bits of a pixel are alpha. Many programs declare none and leave zeros there.
        return Meaning(no_alpha=data[17] & 15 == 0)
    profile = image.info.get("icc_profile") or None
    if kind in ("AVIF", HEIF, "JPEG2000") and profile is None:
        found = box_colour(data)
        if isinstance(found, tuple):
            return Meaning(primaries=primaries_from_cicp(*found))
        profile = found
    if kind == "JPEG" and profile is None and _is_adobe_rgb(image):
        return Meaning(primaries=ADOBE_RGB)
    return Meaning(profile=profile)


def _is_adobe_rgb(image: Image.Image) -> bool:
    """Whether a camera declares Adobe RGB without a profile as in DCF 2.0: no colour space, and the rules R03."""
    if image.mode != "RGB" or b"R03\0" not in image.info.get("exif", b""):
        return False
    try:
        exif = image.getexif()
        space = exif.get_ifd(_EXIF_IFD).get(_COLOR_SPACE)
        return space in (2, 0xFFFF) and str(exif.get_ifd(_INTEROP_IFD).get(1, "")).startswith("R03")
    except Exception:  # broken EXIF says nothing
        return False


def _orientation(image: Image.Image, exif: bytes) -> int:
    try:
        found: object = 1
        if exif:
            read = Image.Exif()
            read.load(exif)
            found = read.get(_ORIENTATION, 1)
        elif image.format != "PNG":
            found = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # broken EXIF is common in honest photos and says nothing about the pixels
        return 1
    return found if isinstance(found, int) else 1


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Undo EXIF orientation 1..8 on (H, W, 3); other numbers have no meaning and change nothing."""
    if orientation in _TURNED:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


@contextmanager
def _as_decode_errors(data: bytes, kind: str) -> Iterator[None]:
    """Report every exception that hostile bytes cause as a fault of the file: Pillow's parsers raise a dozen kinds."""
    try:
        yield
    except DecodeError:
        raise
    except MemoryError as error:
        raise DecodeError("needs more memory than there is") from error
    except Exception as error:
        raise DecodeError(_reason(data, kind, error)) from error


def _reason(data: bytes, kind: str, error: Exception) -> str:
    text = " ".join(str(error).split())[:80]
    cut = "truncated" in text.lower() or isinstance(error, EOFError)
    if cut or (kind == "WEBP" and is_short_webp(data)):
        return "truncated file"
    if found := _unsupported(data, kind, not isinstance(error, SyntaxError | KeyError)):
        return f"not supported here ({found})"
    if _UNSUPPORTED.search(text):
        return f"not supported here ({text})"
    if isinstance(error, SyntaxError):
        return f"truncated or damaged header ({text})" if text else "truncated or damaged header"
    return f"damaged file ({text or type(error).__name__})"


def _unsupported(data: bytes, kind: str, was_open: bool) -> str | None:
    """What in this file no decoder here supports, or None if nothing is known."""
    if kind == "TIFF":
        return why_no_tiff(data, was_open)
    if kind == "JPEG":
        header = jpeg_header(data)
        if header.bits != 8:
            return f"JPEG of {header.bits} bits a sample"
        if header.components not in (1, 3, 4):
            return f"JPEG of {header.components} components"
        if header.frame in (0xC3, 0xC5, 0xC6, 0xC7, 0xCB, 0xCD, 0xCE, 0xCF):
            return f"JPEG of a rare kind, lossless or hierarchical (SOF{header.frame - 0xC0})"
    return None
