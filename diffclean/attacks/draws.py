"""Random numbers that never change: bytes of SHAKE-256, on which releases of numpy have no influence."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from diffclean.data.keys import key_bytes


class Draws:
    """A stream of random numbers that is determined by its name.

    Args:
        name: the name; the streams of names with the same beginning are unrelated.
    """

    def __init__(self, name: bytes) -> None:
        self._name = name
        self._calls = 0

    def integer(self, stop: int) -> int:
        """One of 0 .. stop - 1 (whose probabilities differ by less than 2^-100)."""
        return int.from_bytes(self._bytes(16), "little") % stop

    def uniform(self, *shape: int) -> NDArray[np.float64]:
        """Numbers in [0, 1), multiples of 2^-32."""
        words = np.frombuffer(self._bytes(4 * int(np.prod(shape))), "<u4")
        return words.reshape(shape) / 2.0**32

    def subset(self, count: int, of: int) -> list[int]:
        """`count` different numbers out of 0 .. of - 1; each subset is equally likely."""
        left = list(range(of))
        return sorted(left.pop(self.integer(len(left))) for _ in range(count))

    def _bytes(self, count: int) -> bytes:
        self._calls += 1
        return hashlib.shake_256(b"%d\0" % self._calls + self._name).digest(count)


def image_draws(seed: int, key: str) -> Draws:
    """The random numbers of one image, which depend on the run's seed and the image's key, not on order or workers."""
    return Draws(b"diffclean-attack\0%d\0" % seed + key_bytes(key))


def pattern_draws(seed: int) -> Draws:
    """The random numbers of a pattern that all images share."""
    return Draws(b"diffclean-pattern\0%d" % seed)


def noise(seed: int, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Uniform noise in 0..255, of the given shape; its beginning is the same for every shape."""
    count = int(np.prod(shape))
    return np.frombuffer(hashlib.shake_256(b"diffclean-noise\0%d" % seed).digest(count), np.uint8).reshape(shape)
