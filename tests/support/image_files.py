"""Image files made by hand, of kinds that Pillow does not write."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image


def saved(image: Image.Image, format: str, **options: Any) -> bytes:
    """As Pillow writes it."""
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def png_chunks(*chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG file of these chunks and an end."""
    packed = (
        struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in (*chunks, (b"IEND", b""))
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def png_pixel(
    bits: int, colour_type: int, samples: bytes, *between: tuple[bytes, bytes], size: tuple[int, int] = (1, 1)
) -> bytes:
    """A PNG file of one row: `samples` as they are packed, with other chunks before them."""
    header = struct.pack(">IIBBBBB", *size, bits, colour_type, 0, 0, 0)
    rows = b"".join(b"\0" + samples for _ in range(size[1]))
    return png_chunks((b"IHDR", header), *between, (b"IDAT", zlib.compress(rows)))


def tiff(samples: np.ndarray | bytes, size: tuple[int, int], bits: int, photometric: int | None, **tags: Any) -> bytes:
    """An uncompressed little-endian TIFF of one strip.

    Args:
        samples: as they lie in the file.
        size: (width, height).
        bits: of a sample.
        photometric: its interpretation; None: the tag is left out.
        tags: `count` of samples a pixel, `kind` (1 unsigned, 2 signed, 3 float), `extra` (meaning of extra samples),
            `more` (number -> short values).
    """
    data = samples if isinstance(samples, bytes) else samples.tobytes()
    count = tags.get("count", 1)
    entries: dict[int, tuple[str, Sequence[int]]] = {
        256: ("I", [size[0]]),
        257: ("I", [size[1]]),
        258: ("H", [bits] * count),
        259: ("H", [1]),
        273: ("I", [0]),
        277: ("H", [count]),
        278: ("I", [size[1]]),
        279: ("I", [len(data)]),
        339: ("H", [tags.get("kind", 1)] * count),
    }
    if photometric is not None:
        entries[262] = ("H", [photometric])
    if "extra" in tags:
        entries[338] = ("H", [tags["extra"]])
    entries |= {number: ("H", values) for number, values in tags.get("more", {}).items()}
    base, outside = 8 + 2 + 12 * len(entries) + 4, b""
    for kind, values in entries.values():
        outside += struct.pack(f"<{len(values)}{kind}", *values) if len(values) * struct.calcsize(kind) > 4 else b""
    entries[273] = ("I", [base + len(outside)])
    table, far = b"", base
    for number, (kind, values) in sorted(entries.items()):
        packed = struct.pack(f"<{len(values)}{kind}", *values)
        table += struct.pack("<HHI", number, 4 if kind == "I" else 3, len(values))
        table += packed.ljust(4, b"\0") if len(packed) <= 4 else struct.pack("<I", far)
        far += len(packed) if len(packed) > 4 else 0
    ordered = [struct.pack(f"<{len(v)}{k}", *v) for _, (k, v) in sorted(entries.items())]
    outside = b"".join(packed for packed in ordered if len(packed) > 4)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + table + bytes(4) + outside + data


def icc_profile(space: bytes, primaries: Sequence[Sequence[float]] = (), curve: float | None = None) -> bytes:
    """A small ICC profile (version 4): RGB by a matrix, or grey.

    Args:
        space: `b"RGB "` or `b"GRAY"`.
        primaries: XYZ of red, green and blue for white D50.
        curve: exponent; None: the curve of sRGB.
    """

    def fixed(value: float) -> bytes:
        return struct.pack(">i", round(value * 65536))

    if curve is None:
        numbers = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
        para = b"para\0\0\0\0\0\3\0\0" + b"".join(map(fixed, numbers))
    else:
        para = b"para\0\0\0\0\0\0\0\0" + fixed(curve)
    text = "a".encode("utf-16-be")
    words = b"mluc\0\0\0\0" + struct.pack(">II2s2sII", 1, 12, b"en", b"US", len(text), 28) + text
    white = b"XYZ \0\0\0\0" + b"".join(map(fixed, (0.9642, 1.0, 0.8249)))
    tags = {b"desc": words, b"cprt": words, b"wtpt": white}
    if space == b"GRAY":
        tags[b"kTRC"] = para
    for name, xyz in zip((b"r", b"g", b"b"), primaries, strict=False):
        tags[name + b"XYZ"] = b"XYZ \0\0\0\0" + b"".join(map(fixed, xyz))
        tags[name + b"TRC"] = para
    table, content, at = struct.pack(">I", len(tags)), b"", 128 + 4 + 12 * len(tags)
    for name, value in tags.items():
        value = value.ljust(-(-len(value) // 4) * 4, b"\0")
        table += name + struct.pack(">II", at + len(content), len(value))
        content += value
    header = struct.pack(">I4sI4s4s4s", at + len(content), b"\0\0\0\0", 0x04200000, b"mntr", space, b"XYZ ")
    header += bytes(12) + b"acsp" + bytes(28) + b"".join(map(fixed, (0.9642, 1.0, 0.8249)))
    return header.ljust(128, b"\0") + table + content


DISPLAY_P3 = ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407))
"""XYZ of its primaries for white D50."""
SRGB = ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410))


def jpeg_of_scans(image: Image.Image, scans: int) -> bytes:
    """A progressive JPEG whose last scan is there again and again, so that it has about so many."""
    data = saved(image, "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * (scans - data.count(b"\xff\xda") + 1) + b"\xff\xd9"


def slow_file() -> bytes:
    """A run-length coded BMP that Pillow takes pixel by pixel: hundreds of thousands of short runs."""
    width, height = 8000, 3000
    rows = (b"\1\7" * width + b"\0\0") * height
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(rows), 0, 0, 256, 0)
    start = 14 + 40 + 1024
    return b"BM" + struct.pack("<IHHI", start + len(rows), 0, 0, start) + header + bytes(1024) + rows
