"""What an attack is, and what attacks share. A new attack is one file and one line in `registry`."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from diffclean.data.keys import key_bytes
from diffclean.errors import UsageError

Pixels = NDArray[np.uint8]
"""(H, W, 3) RGB."""


class Attack(Protocol):
    """A way to put a trigger on an image."""

    @property
    def name(self) -> str:
        """What people type."""

    @property
    def citation(self) -> str:
        """Where it comes from."""

    @property
    def default_parameters(self) -> Mapping[str, Any]:
        """Every parameter there is, with its default; values as JSON has them."""

    def resolve(self, parameters: Mapping[str, Any], seed: int) -> dict[str, Any]:
        """All parameters, checked and complete: they alone say what the trigger looks like.

        What is drawn once for all images (a pattern) is fixed here, from `seed`, and files are taken in, so that a
        manifest that holds the result can be replayed anywhere.

        Raises:
            UsageError: an unknown parameter or a value that makes no sense.
        """

    def apply(self, image: Pixels, rng: np.random.Generator, parameters: Mapping[str, Any]) -> Pixels:
        """A triggered copy of one image.

        Args:
            image: (H, W, 3) uint8 RGB, not changed.
            rng: of this image alone (see `image_rng`), for what differs between images.
            parameters: from `resolve`.

        Returns:
            (H, W, 3) uint8.

        Raises:
            UsageError: the trigger does not fit the image.
        """


def image_rng(seed: int, key: str) -> np.random.Generator:
    """The random numbers of one image: they depend on the run's seed and the image's key, not on order or workers."""
    digest = hashlib.sha256(b"diffclean-attack\0%d\0" % seed + key_bytes(key)).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "little")))


def noise(seed: int, shape: tuple[int, ...]) -> Pixels:
    """Uniform noise in 0..255 that is the same for ever: SHAKE-256 bytes, which no numpy release can change."""
    count = int(np.prod(shape))
    return np.frombuffer(hashlib.shake_256(b"diffclean-noise\0%d" % seed).digest(count), np.uint8).reshape(shape)


def with_defaults(attack: Attack, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The attack's defaults overlaid with `parameters`.

    Raises:
        UsageError: a parameter that the attack does not have.
    """
    unknown = sorted(set(parameters) - set(attack.default_parameters))
    if unknown:
        known = ", ".join(f"{name}={value}" for name, value in attack.default_parameters.items())
        raise UsageError(f"{attack.name} has no parameter {', '.join(unknown)}.", f"It has (with defaults): {known}.")
    return {**attack.default_parameters, **parameters}


def require(holds: bool, attack: Attack, name: str, value: object, expected: str) -> None:
    """Refuse a parameter's value.

    Raises:
        UsageError: `holds` is false.
    """
    if not holds:
        raise UsageError(f"{attack.name}: {name} should be {expected}, not {value!r}.")


def is_integer(value: object) -> bool:
    """Whether it is an int; JSON's true and false are ints to Python, but not to us."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    """Whether it is an int or a finite float."""
    return is_integer(value) or (isinstance(value, float) and math.isfinite(value))
