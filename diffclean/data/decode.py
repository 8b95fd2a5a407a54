"""Decode the bytes of any image, including hostile ones, to RGB pixels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np

from diffclean.data import spare
from diffclean.data.formats import FORMATS, HEAD_BYTES, sniffed, why_no_image
from diffclean.data.in_flight import IN_FLIGHT
from diffclean.data.limits import DecodeError, Limits, is_quick, plain_passes
from diffclean.data.pictures import opened

__all__ = ["FORMATS", "DecodeError", "Limits", "decode", "decode_for", "decoded", "size_of"]


def decode(data: bytes, limits: Limits | None = None) -> np.ndarray:
    """Decode one image as people see it: first frame, upright (EXIF), in sRGB, transparency over white.

    Colour information in the file is applied: ICC profiles, PNG's gAMA and cICP, the colour boxes of AVIF and HEIC,
    Adobe RGB by EXIF, and TIFF's photometric interpretation. Sixteen-bit grey is scaled by 255/65535. For 32-bit
    integers and floats no format says which value is white: see `color.rgb_from_grey`.

    Args:
        data: a file of one of `formats.FORMATS`, whatever its name is.
        limits: None: the default `Limits`.

    Returns:
        (H, W, 3) uint8 RGB, contiguous. H and W are the size of the source as seen, after its orientation was applied.

    Raises:
        DecodeError: the file is empty, truncated, damaged, too large, too much work, not supported, or not an image. No
            other exception is raised, whatever the bytes are.
    """
    return decode_for(data, None, limits)[0]


def decode_for(data: bytes, side: int | None, limits: Limits | None = None) -> tuple[np.ndarray, tuple[int, int]]:
    """Decode an image that will be shrunk to a square of `side`; much faster for a much larger image.

    A JPEG is decoded at a half, a quarter or an eighth of its size: the smallest that keeps two pixels for each pixel
    of the square (its DCT blocks are scaled, which also averages).

    Args:
        data: as for `decode`.
        side: the side of the square in pixels; None: decode at full size.
        limits: None: the default `Limits`; they apply to the full size.

    Returns:
        (H, W, 3) uint8 RGB, possibly smaller than the source, and the source's (width, height) as seen.

    Raises:
        DecodeError: as for `decode`.
    """
    with decoded(data, side, limits) as found:
        return found


def size_of(data: bytes, limits: Limits | None = None) -> tuple[int, int]:
    """(width, height) of an image as people see it, read from its header if this can be done safely in this process.

    Raises:
        DecodeError: as for `decode`, as far as the header shows it.
    """
    limits = limits or Limits()
    kind = sniffed(data[:HEAD_BYTES], data[-18:])
    if kind is None or plain_passes(kind, data) is None:
        return decode_for(data, 1, limits)[1]
    with opened(data, kind, limits) as picture:
        return picture.size


@contextmanager
def decoded(
    data: bytes, side: int | None = None, limits: Limits | None = None
) -> Iterator[tuple[np.ndarray, tuple[int, int]]]:
    """As `decode_for`, as a context manager; the memory of the image counts as in flight until the block ends.

    Readers that shrink an image should do so inside the block, so that many readers together take no more memory than
    is allowed (see `in_flight`).
    """
    with ExitStack() as held:
        yield _found(data, side, limits or Limits(), held)


def _found(data: bytes, side: int | None, limits: Limits, held: ExitStack) -> tuple[np.ndarray, tuple[int, int]]:
    if not data:
        raise DecodeError("empty file")
    kind = sniffed(data[:HEAD_BYTES], data[-18:])
    if kind is None:
        raise DecodeError(why_no_image(data))
    passes = plain_passes(kind, data)
    if passes is not None:
        with opened(data, kind, limits) as picture:
            if is_quick(picture.size, passes):
                held.enter_context(IN_FLIGHT.room(picture.bytes))
                return picture.rgb(side), picture.size
    return spare.decoded(data, kind, side, limits, held)
