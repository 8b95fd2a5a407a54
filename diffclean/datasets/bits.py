"""Random bits for an image, which are derived from its name, the seed and their purpose.

What happens to an image therefore does not depend on its batch, on its position in the batch, or on the process that
trains on it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

Bits = NDArray[np.uint64]


class Purpose(IntEnum):
    """What random bits are drawn for. The draws for different purposes are independent."""

    HOLD_OUT = 1
    VARIATION = 2
    ORDER = 3
    AUGMENT = 4
    NETWORK = 5
    TURN = 6
    FLIP = 7


def ids_of(keys: Iterable[str]) -> Bits:
    """(N,) 64 evenly distributed bits that identify each key."""
    digests = (hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest() for key in keys)
    return np.array([int.from_bytes(digest[:8], "little") for digest in digests], np.uint64)


def random_bits(ids: Bits, *numbers: int) -> Bits:
    """(N,) 64 random bits for each of (N,) ids, which differ for other `numbers` (seed, epoch, purpose)."""
    state = 0
    for number in numbers:
        state = int(_mixed(np.array([(state + number) % 2**64], np.uint64))[0])
    return _mixed(ids ^ np.uint64(state))


def _mixed(x: Bits) -> Bits:
    """SplitMix64 (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators")."""
    with np.errstate(over="ignore"):
        x = x + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))
