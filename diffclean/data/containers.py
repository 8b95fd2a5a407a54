"""Parse the containers around images: the boxes of AVIF, HEIC and JPEG 2000, and the images of an icon."""

from __future__ import annotations

import struct

from diffclean.data.limits import DecodeError, Limits

_BOXES_BYTES = 2**20
_PNG = b"\x89PNG\r\n\x1a\n"
_ICONS = 256
_ENUMERATED = (12, 16, 17, 18)
"""The colour spaces of JPEG 2000 that are supported: CMYK, sRGB, grey, sYCC."""


def box_colour(data: bytes) -> tuple[int, int] | bytes | None:
    """The content of the first box `colr`.

    (primaries, transfer) of ITU-T H.273, an ICC profile, or None if there is no box.

    ISO/IEC 23008-12 (nclx, prof, rICC) and ISO/IEC 15444-1 annex I.5.3.3 (method 2: an ICC profile).

    Raises:
        DecodeError: the box names a colour space of JPEG 2000 that is not supported.
    """
    at = data.find(b"colr", 0, _BOXES_BYTES)
    if at < 4:
        return None
    end = min(len(data), at - 4 + int.from_bytes(data[at - 4 : at], "big"))
    content = data[at + 4 : end]
    if content[:4] == b"nclx" and len(content) >= 10:
        primaries, transfer = struct.unpack(">HH", content[4:8])
        return primaries, transfer
    if content[:4] in (b"prof", b"rICC"):
        return content[4:] or None
    if content[:1] == b"\1" and int.from_bytes(content[3:7], "big") not in _ENUMERATED:
        raise DecodeError(f"not supported here (JPEG 2000 of colour space {int.from_bytes(content[3:7], 'big')})")
    if content[:1] == b"\2":
        return content[3:] or None
    return None


def largest_icon(data: bytes, limits: Limits) -> tuple[str, bytes]:
    """The format of the largest image in an icon file, and a file that holds only this image.

    Raises:
        DecodeError: the icon holds no image, or the image is larger than the icon says and than is allowed.
    """
    count = min(int.from_bytes(data[4:6], "little"), _ICONS)
    entries = [data[6 + 16 * index : 22 + 16 * index] for index in range(count)]
    entries = [entry for entry in entries if len(entry) == 16]
    if not entries:
        raise DecodeError("truncated file")
    best = max(entries, key=lambda e: ((e[0] or 256) * (e[1] or 256), int.from_bytes(e[6:8], "little")))
    length, start = struct.unpack("<II", best[8:])
    picture = data[start : start + length]
    if picture.startswith(_PNG):
        return "PNG", picture
    if len(picture) < 40:
        raise DecodeError("truncated file")
    width, height = struct.unpack("<ii", picture[4:12])
    limits.check(abs(width), max(1, abs(height) // 2))  # the mask below the picture counts in its height
    return "ICO", data[:4] + b"\1\0" + best[:12] + struct.pack("<I", 22) + picture
