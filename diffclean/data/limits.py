"""Limits on the size of an image and on the work and memory that it may take, checked before any pixel is decoded."""

from __future__ import annotations

import re
from dataclasses import dataclass

from diffclean.data.item import ItemError

SCANS = 500
"""The largest number of scans of a progressive JPEG, each of which is a pass over the image. NVIDIA's DALI has the same
limit; photos have about ten."""
_SEGMENTS = 500
"""The number of segments in a JPEG's header up to which it counts as plain; photos have under fifty."""
_PADDING = 4096
"""The largest number of fill bytes and markers without content in a JPEG's header; photos have none, or a few."""
_PLAIN_WORK = 200_000_000
"""Up to this number of pixels times passes, an image is decoded without a time limit: a few seconds at most."""
_PLAIN_BYTES = 64 * 2**20
_NEXT_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]", re.DOTALL)
_NOT_RUN_LENGTHS = (b"\0\0\0\0", b"\3\0\0\0")
_LENGTHLESS = frozenset([0x01, *range(0xD0, 0xD9)])
_START_OF_SCAN, _END = 0xDA, 0xD9


class DecodeError(ItemError):
    """These bytes are not an image that can be used; the message is a short reason."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The largest image that is decoded.

    Attributes:
        pixels: the largest product of width and height.
        side: the largest width and the largest height, in pixels.
        seconds: the processor time that one image may take (see `spare`).
    """

    pixels: int = 100_000_000
    side: int = 65_535
    seconds: int = 30

    def check(self, width: int, height: int) -> None:
        """Raise DecodeError if an image of this size is not decoded."""
        if width < 1 or height < 1:
            raise DecodeError(f"image of {width}x{height} pixels")
        if width * height > self.pixels:
            raise DecodeError(f"image of {width}x{height} pixels; the limit is {self.pixels}")
        if max(width, height) > self.side:
            raise DecodeError(f"image of {width}x{height} pixels; the limit is {self.side} a side")


def webp_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) of the canvas, or None if the header does not say it.

    Memory for the canvas is taken as soon as the file is opened.
    """
    kind, body = data[12:16], data[20:30]
    if kind == b"VP8X" and len(body) == 10:
        return 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little")
    if kind == b"VP8 " and len(body) == 10:
        return int.from_bytes(body[6:8], "little") & 0x3FFF, int.from_bytes(body[8:10], "little") & 0x3FFF
    if kind == b"VP8L" and len(body) >= 5:
        bits = int.from_bytes(body[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    return None


@dataclass(frozen=True, slots=True)
class JpegHeader:
    """What is known about a JPEG before it is decoded.

    Attributes:
        scans: the number of passes over the image, 1 or more.
        frame: the kind of frame (the second byte of its SOF marker), 0xC0 to 0xCF; 0 if no frame was found.
        segments: the number of markers before the first scan.
        bits: the bits per sample.
        components: the samples per pixel.
    """

    scans: int
    frame: int
    segments: int
    bits: int = 8
    components: int = 3


def jpeg_header(data: bytes) -> JpegHeader:
    """Read a JPEG's markers (ITU-T T.81, annex B) up to the first scan, or over all scans if there are many.

    Raises:
        DecodeError: there are more than `SCANS` scans or far too many header segments.
    """
    at, segments, frame, bits, components = 2, 0, 0, 8, 3
    padding = 0
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF or marker in _LENGTHLESS:
            at += 1 if marker == 0xFF else 2
            padding += 1  # Pillow goes over it byte by byte, as slowly as this does
            if padding > _PADDING:
                raise DecodeError(f"JPEG with more than {_PADDING} bytes of padding before its picture")
            continue
        if marker in (_START_OF_SCAN, _END):
            break
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            frame, bits, components = marker, data[at + 4], data[at + 9] if at + 9 < len(data) else 0
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        segments += 1
        if segments > _SEGMENTS * 20:
            raise DecodeError(f"JPEG with more than {_SEGMENTS * 20} comments or other segments before its picture")
    # Counting these two bytes is fast and can only find too many scans (in a thumbnail, or behind the image).
    scans = data.count(b"\xff\xda", at)
    if scans > _SEGMENTS // 10:
        scans = _scans(data, at)
    if scans > SCANS:
        raise DecodeError(f"progressive JPEG of more than {SCANS} scans: each is a pass over the whole picture")
    return JpegHeader(max(1, scans), frame, segments, bits, components)


def _scans(data: bytes, at: int) -> int:
    """The number of scans from here to the end of the image, at most one more than is allowed."""
    scans = markers = 0
    while scans <= SCANS and (found := _NEXT_MARKER.search(data, at)):
        marker, at = data[found.start() + 1], found.end()
        if marker == _END:
            break
        markers += 1
        if markers > _SEGMENTS * 20:
            raise DecodeError(f"JPEG with more than {_SEGMENTS * 20} segments between its scans")
        scans += marker == _START_OF_SCAN
        if marker not in _LENGTHLESS:
            at += int.from_bytes(data[at : at + 2], "big")
    return scans


def plain_passes(kind: str, data: bytes) -> int | None:
    """How many times a decoder passes over the image, or None if its work does not follow from pixels and passes.

    The number is known for the formats that most data sets consist of. With few pixels and passes (`is_quick`) these
    need no time limit. All other images go to a process that can be ended (`spare`).

    Args:
        kind: the format, as `formats.sniffed` returns it.
        data: the bytes of the file.

    Raises:
        DecodeError: the file is a JPEG with too many scans or segments.
    """
    if kind == "JPEG":
        header = jpeg_header(data)
        return header.scans if header.segments <= _SEGMENTS and len(data) <= _PLAIN_BYTES else None
    if len(data) > _PLAIN_BYTES:
        return None
    if kind in ("PNG", "WEBP"):
        return 2 if kind == "PNG" else 4  # one pixel costs about as much as this many in a JPEG's scan
    plain = (
        (kind == "PPM" and (data[1:2] not in b"123" or len(data) < 2**20))
        or (kind == "BMP" and data[:2] == b"BM" and data[30:34] in _NOT_RUN_LENGTHS)
        or (kind == "GIF" and len(data) < 2**20)
    )
    return 1 if plain else None


def is_quick(size: tuple[int, int], passes: int) -> bool:
    """Whether this many passes over an image of this size take a few seconds at most."""
    return size[0] * size[1] * passes <= _PLAIN_WORK
