"""Blended: a pattern over the whole image, faintly.

Chen, Liu, Li, Lu, Song: "Targeted Backdoor Attacks on Deep Learning Systems Using Data Poisoning", 2017,
arXiv 1712.05526.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from diffclean.attacks.base import Pixels, is_integer, is_number, noise, require, with_defaults
from diffclean.data.decode import decode
from diffclean.data.encode import encode
from diffclean.data.item import ItemError
from diffclean.errors import UsageError

_EMBEDDED = "png:"
_LONGEST = 512


class Blended:
    """x' = (1 - alpha) x + alpha p (Chen et al. 2017, section IV: blended injection).

    Computed in float64 on 0..255 and rounded to the nearest level, halves to even; nothing can leave 0..255.

    Parameters:
        alpha: in (0, 1].
        pattern: `noise` (uniform, one draw for all images of a size), or an image file. `resolve` takes the file in as
            `png:<base64>`, at most 512 px a side; it is stretched over each image (bicubic).
    """

    name = "blended"
    citation = "Chen et al. 2017, Targeted Backdoor Attacks (blended injection), arXiv 1712.05526"
    default_parameters: Mapping[str, Any] = {"alpha": 0.2, "pattern": "noise", "pattern_seed": None}

    def resolve(self, parameters: Mapping[str, Any], seed: int) -> dict[str, Any]:
        """See `Attack.resolve`; `pattern_seed` None becomes the run's seed."""
        chosen = with_defaults(self, parameters)
        alpha, pattern = chosen["alpha"], chosen["pattern"]
        require(is_number(alpha) and 0 < alpha <= 1, self, "alpha", alpha, "above 0 and at most 1")
        require(isinstance(pattern, str), self, "pattern", pattern, "noise or an image file")
        if pattern != "noise" and not pattern.startswith(_EMBEDDED):
            chosen["pattern"] = _embedded(Path(pattern))
        elif pattern != "noise":
            _decoded(pattern)
        chosen["pattern_seed"] = seed if chosen["pattern_seed"] is None else chosen["pattern_seed"]
        require(is_integer(chosen["pattern_seed"]), self, "pattern_seed", chosen["pattern_seed"], "an integer")
        return chosen

    def apply(self, image: Pixels, rng: np.random.Generator, parameters: Mapping[str, Any]) -> Pixels:
        """See `Attack.apply`; every image gets the same pattern, so `rng` is not used."""
        height, width = image.shape[:2]
        alpha = float(parameters["alpha"])
        overlay = _pattern(parameters["pattern"], parameters["pattern_seed"], height, width)
        blended = (1 - alpha) * image.astype(np.float64) + alpha * overlay
        return np.rint(blended).astype(np.uint8)


@lru_cache(maxsize=16)
def _pattern(pattern: str, pattern_seed: int, height: int, width: int) -> Pixels:
    """(height, width, 3) uint8, read-only in use: it is shared by all images of that size."""
    if pattern == "noise":
        return noise(pattern_seed, (height, width, 3))
    return np.asarray(Image.fromarray(_decoded(pattern)).resize((width, height), Image.Resampling.BICUBIC))


def _embedded(path: Path) -> str:
    try:
        image = Image.fromarray(decode(path.read_bytes()))
    except (OSError, ItemError) as error:
        raise UsageError(f"The pattern {path} cannot be read: {error}", "Give noise, or an image file.") from error
    image.thumbnail((_LONGEST, _LONGEST), Image.Resampling.BICUBIC)
    return _EMBEDDED + base64.b64encode(encode(np.asarray(image))).decode("ascii")


def _decoded(pattern: str) -> Pixels:
    try:
        return decode(base64.b64decode(pattern.removeprefix(_EMBEDDED), validate=True))
    except (binascii.Error, ItemError) as error:
        raise UsageError(f"The pattern in the manifest is damaged: {error}") from error
