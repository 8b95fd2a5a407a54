"""Select the chunks of a PNG file that Pillow receives: only those of the image itself.

All others are read here or left out.

Pillow refuses a whole image because of an ancillary chunk that is too long or has a wrong checksum, reads colour
information without applying it, and treats a transparent colour as one of eight bits. Layout and meaning follow the PNG
specification (W3C, third edition).
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

from diffclean.data.limits import DecodeError

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PICTURE = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND"})
_READ = frozenset({b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"cICP", b"eXIf"})
_PROFILE_BYTES = 16 * 2**20
_META_BYTES = 2**20
_CHUNKS = 2_000_000
GREY, COLOUR, PALETTE = 0, 2, 3


@dataclass(frozen=True, slots=True)
class PngParts:
    """The parts of a PNG file.

    Attributes:
        picture: a PNG file with the image alone, including the transparency of a palette.
        width, height: in pixels.
        bits: the bits per sample.
        colour_type: 0 grey, 2 colour, 3 palette, 4 and 6 with alpha.
        transparent: the one transparent value (grey) or the three (colour), in samples of `bits`; None if there is
            none.
        profile: the ICC profile, or None if there is none.
        gamma: the gamma of the file, as in gAMA; None for sRGB or if another chunk defines the colours.
        cicp: (primaries, transfer) as in ITU-T H.273, or None if the file has no cICP chunk.
        exif: the bytes of the EXIF data; empty if there are none.
    """

    picture: bytes
    width: int
    height: int
    bits: int
    colour_type: int
    transparent: tuple[int, ...] | None = None
    profile: bytes | None = None
    gamma: float | None = None
    cicp: tuple[int, int] | None = None
    exif: bytes = b""


def png_parts(data: bytes) -> PngParts:
    """Divide a PNG file into its parts.

    Raises:
        DecodeError: the file has no complete header, or far too many chunks.
    """
    view = memoryview(data)
    kept: list[memoryview | bytes] = [_SIGNATURE]
    found: dict[bytes, bytes] = {}
    at, count = len(_SIGNATURE), 0
    while at + 8 <= len(data):
        length, kind = int.from_bytes(view[at : at + 4], "big"), data[at + 4 : at + 8]
        end = at + 12 + length
        if kind in _PICTURE or (kind == b"tRNS" and found.get(b"IHDR", b"")[9:10] == b"\3"):
            kept.append(view[at:end])
            found.setdefault(kind, data[at + 8 : at + 8 + min(length, 13)] if kind == b"IHDR" else b"")
        elif kind in _READ and length <= _PROFILE_BYTES and _is_whole(view[at:end], length):
            # A damaged chunk is ignored, and the image is still read.
            found.setdefault(kind, data[at + 8 : end - 4])
        at, count = end, count + 1
        if kind == b"IEND":
            break
        if count > _CHUNKS:
            raise DecodeError(f"PNG of more than {_CHUNKS} chunks")
    header = found.get(b"IHDR", b"")
    if len(header) < 13:
        raise DecodeError("truncated or damaged header")
    width, height, bits, colour_type = struct.unpack(">IIBB", header[:10])
    return PngParts(
        b"".join(kept),
        width,
        height,
        bits,
        colour_type,
        _transparent(found.get(b"tRNS", b""), bits, colour_type),
        _profile(found.get(b"iCCP", b"")),
        _gamma(found),
        _cicp(found.get(b"cICP", b"")),
        found.get(b"eXIf", b"")[:_META_BYTES],
    )


def _is_whole(chunk: memoryview, length: int) -> bool:
    """Whether a chunk is complete and has the right checksum."""
    return len(chunk) == length + 12 and zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:], "big")


def _transparent(content: bytes, bits: int, colour_type: int) -> tuple[int, ...] | None:
    wanted = {GREY: 1, COLOUR: 3}.get(colour_type)
    if wanted is None or len(content) < 2 * wanted:
        return None
    # Only the low bits count if a sample has fewer than sixteen.
    return tuple(value & (2**bits - 1) for value in struct.unpack(f">{wanted}H", content[: 2 * wanted]))


def _profile(content: bytes) -> bytes | None:
    _, _, rest = content.partition(b"\0")
    if not rest:
        return None
    inflate = zlib.decompressobj()
    try:
        profile = inflate.decompress(rest[1:], _PROFILE_BYTES)
    except zlib.error:
        return None
    return profile if inflate.eof else None


def _gamma(found: dict[bytes, bytes]) -> float | None:
    """The value of gAMA, unless a chunk with higher precedence is present (section 4.3 of the specification)."""
    content = found.get(b"gAMA", b"")
    if len(content) < 4 or found.keys() & {b"sRGB", b"iCCP", b"cICP"}:
        return None
    value = int.from_bytes(content[:4], "big") / 100_000
    return value if 0.01 <= value <= 100 else None


def _cicp(content: bytes) -> tuple[int, int] | None:
    return (content[0], content[1]) if len(content) >= 4 else None
