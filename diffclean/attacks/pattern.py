"""The pictures that triggers are made of: drawn from a seed, or an image file that is embedded in the manifest."""

from __future__ import annotations

import base64
import binascii
import io
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from diffclean.attacks.base import Pixels
from diffclean.attacks.check import Check
from diffclean.attacks.draws import noise
from diffclean.attacks.natural import natural_picture
from diffclean.data.decode import FORMATS, Limits
from diffclean.errors import UsageError

NOISE = "noise"
PICTURE = "picture"
DRAWN = (NOISE, PICTURE)
"""The patterns that need no file: uniform noise, and a picture like a photograph (see `natural`)."""
_EMBEDDED = "png:"
_LONGEST = 512


def check_picture(check: Check, name: str, expected: str) -> None:
    """Check a parameter that names an image file, and embed it as `png:<base64>` with sides of at most 512 px."""
    value = check.values[name]
    if not check.that(isinstance(value, str) and value != "", name, expected):
        return
    try:
        if value.startswith(_EMBEDDED):
            picture(value)
        else:
            check.values[name] = _embedded(Path(value))
    except UsageError as error:
        check.wrong(f"{name}: {error.message} Expected: {expected}.")


@lru_cache(maxsize=16)
def picture(embedded: str) -> NDArray[np.uint8]:
    """(H, W, 4) uint8 RGBA, where alpha 0 is transparent; do not change the returned array.

    Raises:
        UsageError: the text is not an embedded image.
    """
    try:
        data = base64.b64decode(embedded.removeprefix(_EMBEDDED), validate=True)
    except binascii.Error as error:
        raise UsageError(f"The picture in the manifest is damaged: {error}.") from error
    return np.asarray(_opened(data, "The picture in the manifest", _LONGEST**2))


@lru_cache(maxsize=2)  # few sizes, for a photograph takes hundreds of megabytes
def full_image(pattern: str, pattern_seed: int, height: int, width: int) -> Pixels:
    """A pattern that covers an image: noise, or a picture stretched over it (bicubic; transparency over white).

    Args:
        pattern: one of `DRAWN`, or the result of `check_picture` for a file.
        pattern_seed: the seed from which a pattern is drawn.
        height: the height of the image.
        width: the width of the image.

    Returns:
        (height, width, 3) uint8, which all images of that size share; do not change it.
    """
    if pattern == NOISE:
        return noise(pattern_seed, (height, width, 3))
    if pattern == PICTURE:
        flat = Image.fromarray(natural_picture(pattern_seed))
    else:
        with_alpha = Image.fromarray(picture(pattern))
        flat = Image.alpha_composite(Image.new("RGBA", with_alpha.size, "white"), with_alpha).convert("RGB")
    return np.asarray(flat.resize((width, height), Image.Resampling.BICUBIC))


def _embedded(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}.") from error
    image = _opened(data, str(path), Limits().pixels)
    image.thumbnail((_LONGEST, _LONGEST), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return _EMBEDDED + base64.b64encode(buffer.getvalue()).decode("ascii")


def _opened(data: bytes, name: str, pixels: int) -> Image.Image:
    """The image as RGBA; `data.decode` would put white behind transparent pixels."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.width * image.height > pixels:
                raise UsageError(f"{name} has {image.width}x{image.height} pixels; the limit is {pixels}.")
            return ImageOps.exif_transpose(image).convert("RGBA")
    except UsageError:
        raise
    except Exception as error:  # Pillow's parsers raise many kinds; each means that the bytes are not an image
        raise UsageError(f"{name} cannot be read as an image.") from error
