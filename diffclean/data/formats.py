"""The image formats that diffclean reads, and how they are recognised by the first bytes of a file, whatever its name.

diffclean reads formats that Pillow decodes in compiled code, without another program, as one image. It deliberately
leaves out formats that run another program (EPS, WMF), documents and layers (PSD, PDF), containers of several images
with different meanings (ICNS, DCX, FLI, MPEG), textures and scientific arrays whose white is unknown (DDS, FITS, HDF5,
GRIB), and formats that cannot be recognised by their first bytes.
"""

from __future__ import annotations

import codecs
import re
from functools import cache

HEIF = "HEIF"
FORMATS = (
    "JPEG",
    "PNG",
    "WEBP",
    "GIF",
    "BMP",
    "DIB",
    "TIFF",
    "PPM",
    "AVIF",
    "JPEG2000",
    "ICO",
    "PCX",
    "QOI",
    "SGI",
    "TGA",
)
"""The names that Pillow uses. The extra `heic` adds HEIF. Pillow opens MPO, a JPEG followed by more images, as a JPEG;
DIB is a BMP without its first header."""
NAMED = "JPEG, PNG, WebP, GIF, BMP, TIFF, PPM, AVIF, JPEG 2000, ICO, PCX, QOI, SGI, TGA; HEIC with the extra `heic`"
EXTENSIONS = frozenset(
    "jpg jpeg jpe jif jfif pjp pjpeg mpo png apng webp gif bmp dib tif tiff ppm pgm pbm pnm pfm "  # noqa: SIM905 - a list
    "avif avifs jp2 j2k j2c jpc jpf jpx ico pcx qoi sgi tga".split()
)
"""A file with one of these extensions is treated as an image without looking into it; for all other names, the first
bytes of the file decide."""
RAW_EXTENSIONS = frozenset(
    "3fr arw cr2 cr3 crw dcr dng erf fff iiq k25 kdc mef mos mrw nef nrw orf pef raf rw2 rwl sr2 srf srw x3f".split()  # noqa: SIM905 - a list
)
"""The extensions of raw camera files. Many are TIFF by their first bytes, and their first image is a small preview."""
HEIF_EXTENSIONS = frozenset({"heic", "heif", "hif"})
HEAD_BYTES = 64
"""The number of bytes at the start of a file that `sniffed` needs."""

_DIB_HEADERS = {12, 16, 40, 52, 56, 64, 108, 124}
_STARTS: tuple[tuple[str, re.Pattern[bytes]], ...] = tuple(
    (name, re.compile(pattern, re.DOTALL))
    for name, pattern in (
        ("JPEG", rb"\xff\xd8\xff"),
        ("PNG", rb"\x89PNG\r\n\x1a\n"),
        ("WEBP", rb"RIFF....WEBP"),
        ("GIF", rb"GIF8[79]a"),
        ("TIFF", rb"II[*+]\0|MM\0[*+]"),
        ("AVIF", rb"....ftyp(?:avi[fs]|.{4}.{4}(?:.{4}){0,8}avi[fs])"),
        (HEIF, rb"....ftyp(?:he[iv][cxms]|mif1|msf1)"),
        ("JPEG2000", rb"\xff\x4f\xff\x51|\0\0\0\x0cjP  \r\n\x87\n"),
        ("PPM", rb"P[1-6fF]\s+(?:#|[0-9])"),
        ("QOI", rb"qoif"),
        ("SGI", rb"\x01\xda[\0\x01][\x01\x02]\0[\x01-\x03]"),
        ("PCX", rb"\x0a[\0\x02\x03\x05]\x01[\x01\x02\x04\x08]"),
        ("ICO", rb"\0\0\x01\0[\x01-\xff]\0...[\0\x01]"),
    )
)
_SHORT_STARTS = (b"\xff\xd8", b"\x89PNG", b"RIFF", b"BM", b"GIF8", b"II*", b"MM\0")
_TGA_FOOTER = b"TRUEVISION-XFILE.\0"


@cache
def heif_is_there() -> bool:
    """Whether the extra `heic` is installed. The first call registers the format with Pillow."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return False
    register_heif_opener(thumbnails=False)
    return True


def sniffed(head: bytes, tail: bytes = b"") -> str | None:
    """Recognise the format of a file by its first bytes (for TGA by its last).

    `HEIF` is recognised whether or not it can be decoded on this machine.

    Args:
        head: the first `HEAD_BYTES` of the file, or all of it.
        tail: the last 18 bytes of the file or more.

    Returns:
        Pillow's name for the format, or None if the format is not recognised.
    """
    for name, start in _STARTS:
        if start.match(head):
            return name
    # The two letters BM are not enough, as texts can begin with them. The size of the second header has few values.
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _DIB_HEADERS:
        return "BMP"
    if int.from_bytes(head[:4], "little") in _DIB_HEADERS - {12, 16, 64} and head[12:14] == b"\1\0":
        return "DIB"
    return "TGA" if tail[-18:] == _TGA_FOOTER else None


_EXTENSION_OF = {"JPEG": "jpg", "JPEG2000": "jp2", "TIFF": "tif", "HEIF": "heic", "DIB": "dib"}


def extension_of(data: bytes) -> str:
    """The extension, without its dot, that suits the content of an image file; `img` if that is not recognised."""
    kind = sniffed(data[:HEAD_BYTES], data[-18:])
    return _EXTENSION_OF.get(kind, kind.lower()) if kind else "img"


def is_taken(extension: str) -> bool:
    """Whether a file with this extension is treated as an image without looking into it (lower case, no dot)."""
    return extension in EXTENSIONS or (extension in HEIF_EXTENSIONS and heif_is_there())


def why_no_image(data: bytes) -> str:
    """A short reason why bytes that `sniffed` does not recognise are not an image."""
    if is_short_webp(data):
        return "truncated file"
    if data.startswith(_SHORT_STARTS):
        return "truncated or damaged header"
    head = data[:512]
    if all(byte >= 32 or byte in b"\t\n\r\f" for byte in head) and not _broken_utf8(head):
        return "not an image (text?)"
    return f"not an image that can be read here ({NAMED})"


def is_short_webp(data: bytes) -> bool:
    """Whether this is a WebP file whose end is missing."""
    return data[:4] == b"RIFF" and len(data) < 8 + int.from_bytes(data[4:8], "little")


def _broken_utf8(head: bytes) -> bool:
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)  # incremental: a character may be cut off at the end
    except UnicodeDecodeError:
        return True
    return False
