"""Read PBM, PGM, PPM and PFM with numpy.

Pillow reads their headers byte by byte and some of their pixels one by one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from diffclean.data.limits import DecodeError

_HEADER_BYTES = 64 * 2**10
_DIGITS = 10
_GAP = rb"(?:\s|#[^\n\r]*[\n\r])+"
_HEADERS = {
    kind: re.compile(rb"P[" + kind + rb"]" + _GAP + _GAP.join([rb"([0-9]{1,10})"] * numbers) + rb"(?:#[^\n\r]*)?\s")
    for kind, numbers in ((b"14", 2), (b"2356", 3))
}
_FLOAT_HEADER = re.compile(rb"P[fF]\s+([0-9]{1,10})\s+([0-9]{1,10})\s+([-+0-9.eE]{1,20})\s")
_COMMENT = re.compile(rb"#[^\n\r]*")


@dataclass(frozen=True, slots=True)
class Netpbm:
    """The header of such a file.

    Attributes:
        kind: the digit or letter after P.
        width, height: in pixels.
        most: the value that is white; for a PFM, 1 or -1, which gives the order of its bytes.
        start: the offset of the pixels.
    """

    kind: str
    width: int
    height: int
    most: float
    start: int

    @property
    def channels(self) -> int:
        """The number of channels, 1 or 3."""
        return 3 if self.kind in "36F" else 1


def netpbm_header(data: bytes) -> Netpbm:
    """Read the header; raises DecodeError if it is truncated, damaged, or mostly comments."""
    head, kind = data[:_HEADER_BYTES], data[1:2]
    pattern = _FLOAT_HEADER if kind in b"fF" else next(p for kinds, p in _HEADERS.items() if kind in kinds)
    found = pattern.match(head)
    if not found:
        much = len(data) > _HEADER_BYTES and head.count(b"#") > 0
        raise DecodeError(
            f"comments of more than {_HEADER_BYTES} bytes before the picture" if much else "truncated or damaged header"
        )
    width, height = int(found[1]), int(found[2])
    try:
        most = float(found[3]) if pattern.groups == 3 else 1.0
    except ValueError:
        raise DecodeError("truncated or damaged header") from None
    if kind in b"2356" and not 1 <= most <= 65535:
        raise DecodeError(f"damaged file (a greatest value of {most:.0f}, which must be 1 to 65535)")
    return Netpbm(kind.decode(), width, height, most, found.end())


def netpbm_values(data: bytes, header: Netpbm) -> np.ndarray:
    """(H, W, C) samples as they are in the file, C 1 or 3: unsigned, or float32 for a PFM; in a PBM, 1 is white.

    Raises:
        DecodeError: the file is truncated or damaged.
    """
    shape = (header.height, header.width, header.channels)
    count = header.height * header.width * header.channels
    if header.kind in "123":
        return _from_text(data[header.start :], header, count).reshape(shape)
    if header.kind == "4":
        row = (header.width + 7) // 8
        packed = _raw(data, header, np.dtype(np.uint8), row * header.height).reshape(header.height, row)
        return 1 - np.unpackbits(packed, axis=1, count=header.width).reshape(shape)
    if header.kind in "fF":
        floats = _raw(data, header, np.dtype("<f4" if header.most < 0 else ">f4"), count)
        return floats.reshape(shape)[::-1].astype(np.float32)  # from the bottom up
    return _raw(data, header, np.dtype(np.uint8 if header.most < 256 else ">u2"), count).reshape(shape)


def _raw(data: bytes, header: Netpbm, dtype: np.dtype[np.generic], count: int) -> np.ndarray:
    if len(data) - header.start < count * dtype.itemsize:
        raise DecodeError("truncated file")
    return np.frombuffer(data, dtype, count, header.start)


def _from_text(text: bytes, header: Netpbm, count: int) -> np.ndarray:
    """Read numbers that are written as text; in a PBM they are single digits, with or without spaces between them."""
    text = _COMMENT.sub(b"", text)
    if header.kind == "1":
        digits = np.frombuffer(text, np.uint8)
        values = 1 - (digits[(digits == 48) | (digits == 49)] - 48)
    else:
        words = text.split(None, count)[:count]
        if max(map(len, words), default=0) > _DIGITS:
            raise DecodeError("damaged file (a number of too many digits)")
        try:
            values = np.array(words, dtype=f"S{_DIGITS}").astype(np.int64) if words else np.empty(0, np.int64)
        except ValueError:
            raise DecodeError("damaged file (something other than numbers)") from None
        if len(values) and (values.min() < 0 or values.max() > header.most):
            raise DecodeError("damaged file (a value above the greatest)")
    if len(values) < count:
        raise DecodeError("truncated file")
    return values[:count].astype(np.uint16 if header.kind != "1" else np.uint8)
