"""The meaning of TIFF tags that Pillow ignores, and the reasons why a TIFF file cannot be read."""

from __future__ import annotations

import io
import struct
from contextlib import suppress
from typing import Any

from PIL import TiffImagePlugin

from diffclean.data.color import Meaning
from diffclean.data.limits import DecodeError

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _SAMPLES = 256, 257, 258, 259, 262, 277
_TILE_WIDTH, _TILE_HEIGHT, _INKS, _SAMPLE_FORMAT, _SUBSAMPLING = 322, 323, 332, 339, 530
_SUBFILE_TYPE, _REDUCED, _DNG_VERSION = 254, 1, 50706
_PIECES = (273, 279, 324, 325)
"""Where each strip and tile begins, and how long it is."""
_MOST_PIECES = 2**16
"""Of strips or tiles: Pillow seeks, reads 64 KiB and starts a decoder for each. One row a strip needs as many at most,
since a picture has at most 65,535 rows."""
_MOST_TAGS = 4096
"""Of a directory, of which files have some dozens; Pillow reads it several times."""
_PHOTOMETRICS = {
    None: "photometric interpretation not told",
    0: "white is zero",
    1: "black is zero",
    2: "RGB",
    3: "palette",
    4: "mask",
    5: "CMYK",
    6: "YCbCr",
    8: "CIELab",
    9: "ICCLab",
    10: "ITULab",
    32803: "colour filter array",
    34892: "linear raw",
}
_KINDS = {1: "", 2: "signed ", 3: "floating-point ", 4: "", 5: "complex integer ", 6: "complex "}
_FAX = ("group3", "group4", "tiff_ccitt")
_COMMON = (1, 2, 3, 4, 5, 6, 7, 8, 32771, 32773, 32946)
"""The numbers of the compressions that every build of libtiff has."""
_SIGNED = 2


def check_directory(data: bytes) -> None:
    """Refuse a file whose first directory is out of proportion to any picture, before Pillow reads it.

    Raises:
        DecodeError: it has too many tags, strips or tiles. What is damaged otherwise is left to Pillow.
    """
    order, is_big = ("<" if data[:2] == b"II" else ">"), data[2:3] == b"+"  # as Pillow tells them apart
    where, number, entry = ("8xQ", "Q", "HHQ8x") if is_big else ("4xL", "H", "HHL4x")
    with suppress(struct.error, OverflowError):
        (at,) = struct.unpack_from(order + where, data)
        (tags,) = struct.unpack_from(order + number, data, at)
        if tags > _MOST_TAGS:
            raise DecodeError(f"TIFF of more than {_MOST_TAGS} tags")
        at += struct.calcsize(order + number)
        for _ in range(tags):
            tag, _kind, count = struct.unpack_from(order + entry, data, at)
            if tag in _PIECES and count > _MOST_PIECES:
                raise DecodeError(f"TIFF of more than {_MOST_PIECES} strips or tiles")
            at += struct.calcsize(order + entry)


def tile_size(image: TiffImagePlugin.TiffImageFile) -> tuple[int, int]:
    """(width, height) of a tile, or (1, 1) if there are none.

    A tile is decoded whole, however small the part of the image in it.
    """
    return _number(image, _TILE_WIDTH, 1), _number(image, _TILE_HEIGHT, 1)


def tiff_meaning(image: TiffImagePlugin.TiffImageFile) -> Meaning:
    """What the samples mean.

    Raises:
        DecodeError: the samples cannot be converted.
    """
    tags = image.tag_v2
    bits = _first(tags.get(_BITS), 1)
    formats = _first(tags.get(_SAMPLE_FORMAT), 1)
    photometric = tags.get(_PHOTOMETRIC)
    compression = image.info.get("compression", "raw")
    if _DNG_VERSION in tags or _first(tags.get(_SUBFILE_TYPE), 0) & _REDUCED:
        raise DecodeError("not supported here (TIFF whose first picture is a small preview, as in raw camera files)")
    if photometric == 5 and _number(image, _INKS, 1) != 1:
        raise DecodeError("not supported here (TIFF of inks other than CMYK)")
    if photometric == 6 and compression == "raw" and tuple(tags.get(_SUBSAMPLING, (1, 1))) != (1, 1):
        raise DecodeError("not supported here (TIFF of uncompressed YCbCr with fewer colour samples)")
    wide = image.mode in ("I", "F") or image.mode.startswith("I;")
    # If the file does not say it, zero is black, as in libtiff; only faxes are the opposite. Pillow inverts samples of
    # up to eight bits on its own, even if the file does not say it.
    wanted = photometric == 0 or (photometric is None and compression in _FAX)
    done = not wide and image.mode in ("1", "L") and photometric in (0, None)
    return Meaning(
        bits=bits if wide and formats == 1 and bits <= 16 else None,
        inverted=wanted != done,
        signed=formats == _SIGNED and bits == 8,
        unsigned=formats == 1 and bits == 32,
        profile=image.info.get("icc_profile"),
    )


def why_no_tiff(data: bytes, opened: bool) -> str | None:
    """What kind of TIFF this is, if Pillow cannot read it; None if its tags cannot be read either.

    Args:
        data: the bytes of the file.
        opened: whether Pillow recognised its samples; then only a rare compression can be what Pillow lacks.
    """
    with suppress(Exception):  # the tags of a damaged file fail in many ways
        # The eight bytes (sixteen of BigTIFF) that say where the first directory is.
        header = data[: 16 if data[2:3] == b"+" or data[3:4] == b"+" else 8]
        tags: Any = TiffImagePlugin.ImageFileDirectory_v2(header)
        file = io.BytesIO(data)
        file.seek(tags.next)
        tags.load(file)
        bits, samples = _first(tags.get(_BITS), 1), int(tags.get(_SAMPLES, 1))
        compression = tags.get(_COMPRESSION, 1)
        if not (int(tags[_WIDTH]) and int(tags[_HEIGHT])) or (opened and compression in _COMMON):
            return None
        kind = _KINDS.get(_first(tags.get(_SAMPLE_FORMAT), 1), "unknown ")
        colour = tags.get(_PHOTOMETRIC)
        meaning = (
            "no colour told" if colour is None else _PHOTOMETRICS.get(colour, f"photometric interpretation {colour}")
        )
        kept = f"{samples} {kind}sample{'s' * (samples != 1)} of {bits} bit{'s' * (bits != 1)}, {meaning}"
        return f"TIFF of {kept}, compression {compression}"
    return None


def _first(value: Any, default: int) -> int:
    found = value[0] if isinstance(value, tuple) and value else value
    return found if isinstance(found, int) else default


def _number(image: TiffImagePlugin.TiffImageFile, tag: int, default: int) -> int:
    return _first(image.tag_v2.get(tag), default)
