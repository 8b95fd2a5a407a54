"""Makes small pictures of the images of a data set, which are safe to show whatever the files contain."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from diffclean.data.decode import DecodeError, decoded
from diffclean.data.item import Item, ItemError
from diffclean.data.outputs import outputs_of
from diffclean.data.registry import open_source
from diffclean.data.sources import Source
from diffclean.errors import DiffcleanError

SIDE = 160
"""Longer side of a thumbnail, in pixels."""
LIMIT_BYTES = 12 * 1024
"""Of one thumbnail: a page of the most pictures that it shows then stays below 5 MB."""
_LOSSLESS_SIDE = 64
"""Pictures up to this side are kept pixel by pixel where that is small enough: a trigger may be three pixels wide."""

_Find = Callable[[str, frozenset[str]], tuple[Source, dict[str, Item]]]
"""Opens a data set, and finds some images in it."""


@dataclass(frozen=True)
class Thumbnail:
    """A small picture.

    Attributes:
        data: the bytes of a WebP file.
        width: the width in pixels.
        height: the height in pixels.
    """

    data: bytes
    width: int
    height: int

    @property
    def uri(self) -> str:
        """The value for the `src` of an `img`."""
        return f"data:image/webp;base64,{base64.b64encode(self.data).decode()}"

    @property
    def is_tiny(self) -> bool:
        """Whether the picture should be enlarged in whole pixels instead of blurred."""
        return max(self.width, self.height) <= _LOSSLESS_SIDE


def thumbnail(data: bytes, side: int = SIDE) -> Thumbnail:
    """Make a picture that is at most `side` large. A smaller picture is not enlarged.

    Args:
        data: the bytes of an image file.
        side: the longer side, in pixels.

    Raises:
        DecodeError: the data is not an image that can be read.
    """
    with decoded(data, side) as (pixels, _):
        picture = Image.fromarray(np.ascontiguousarray(pixels))
        picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    return Thumbnail(_encoded(picture), *picture.size)


def _encoded(picture: Image.Image) -> bytes:
    """Encode as WebP within `LIMIT_BYTES`: lossless if that fits, otherwise in the best quality that fits."""
    if max(picture.size) <= _LOSSLESS_SIDE and len(data := _webp(picture, lossless=True, quality=70)) <= LIMIT_BYTES:
        return data
    for quality in (82, 60, 30, 5):
        data = _webp(picture, quality=quality)
        if len(data) <= LIMIT_BYTES:
            break
    return data


def _webp(picture: Image.Image, **options: int) -> bytes:
    file = io.BytesIO()
    picture.save(file, "WEBP", method=4, **options)
    return file.getvalue()


def picture_of(text: str) -> Thumbnail | None:
    """Return the small picture of an image file in base64, or None if the file cannot be read."""
    try:
        return thumbnail(base64.b64decode(text, validate=True)) if text else None
    except (ValueError, DecodeError):
        return None


class Album:
    """Thumbnails of some images of one data set, of whatever format.

    Args:
        opened: gives the data set, and where each of the images is in it; called once.

    Attributes:
        problem: why there are no pictures at all. Empty if there are pictures.
    """

    def __init__(self, opened: Callable[[], tuple[Source, dict[str, Item]]] | None, problem: str = "") -> None:
        self.problem = problem
        self._source: Source | None = None
        self._items: dict[str, Item] = {}
        if opened is not None:
            try:
                self._source, self._items = opened()
            except DiffcleanError as error:
                self.problem = error.message

    @classmethod
    def of_data(cls, where: str | None, keys: Iterable[str]) -> Album:
        """Of a data set; `keys` are those of the images that may be asked for. None: it is gone."""
        return cls._of(where, keys, _items_of)

    @classmethod
    def of_run(cls, run: str | None, outputs: Iterable[str]) -> Album:
        """Of what `variate` wrote; `outputs` are named as in its manifest. None: it is gone."""
        return cls._of(run, outputs, lambda where, wanted: outputs_of(Path(where), wanted))

    @classmethod
    def _of(cls, where: str | None, keys: Iterable[str], find: _Find) -> Album:
        wanted = frozenset(keys)
        if where is None:
            return cls(None, "the folder is no longer there")
        return cls((lambda: find(where, wanted)) if wanted else None)

    def thumbnail(self, key: str, side: int = SIDE) -> Thumbnail | str:
        """Return the picture of one image, or the reason why there is none."""
        if self.problem:
            return self.problem
        item = self._items.get(key)
        if item is None or self._source is None:
            return "it is not in the data set"
        if item.problem:
            return item.problem
        try:
            return thumbnail(self._source.read(item), side)
        except (DecodeError, ItemError) as error:
            return str(error)


def _items_of(where: str, wanted: frozenset[str]) -> tuple[Source, dict[str, Item]]:
    source = open_source(where)
    return source, {item.key: item for item in source.stream() if item.key in wanted}
