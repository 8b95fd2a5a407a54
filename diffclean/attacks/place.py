"""The size and the place of a local trigger, on images of any size."""

from __future__ import annotations

from typing import Any

from diffclean.attacks.base import Pixels
from diffclean.attacks.check import Check, is_number
from diffclean.attacks.draws import Draws
from diffclean.errors import UsageError

PLACES: dict[str, tuple[float, float]] = {
    "top-left": (0.0, 0.0),
    "top-right": (1.0, 0.0),
    "bottom-left": (0.0, 1.0),
    "bottom-right": (1.0, 1.0),
    "center": (0.5, 0.5),
}
"""Maps a name to (x, y), the shares of the free room that are before the trigger."""

NAMES = (*PLACES, "random")


def check_size(check: Check) -> None:
    """Check the parameter `size`."""
    size = check.values["size"]
    fits = is_number(size) and (0 < size < 1 or (size >= 1 and size == int(size)))
    check.that(fits, "size", "a number of pixels, or a share of the image below 1")


def check_place(check: Check) -> None:
    """Check the parameters `size`, `place` and `margin`."""
    place = check.values["place"]
    check_size(check)
    pair = isinstance(place, list) and len(place) == 2 and all(is_number(share) and 0 <= share <= 1 for share in place)
    named = isinstance(place, str) and place in NAMES
    check.that(pair or named, "place", f"one of {', '.join(NAMES)}, or [x, y] with shares from 0 to 1")
    check.integer("margin", 0)


def pixels_of(size: float, image: Pixels) -> int:
    """`size` in pixels; below 1 it is a share of the shorter side (rounded, at least 1 px)."""
    return int(size) if size >= 1 else max(1, round(size * min(image.shape[:2])))


def top_left(
    image: Pixels, height: int, width: int, place: Any, margin: int, draws: Draws | None = None
) -> tuple[int, int]:
    """The position (top, left) of a trigger of `height` x `width` px.

    Args:
        image: (H, W, 3).
        height: the height of the trigger, in pixels.
        width: the width of the trigger, in pixels.
        place: a name in `NAMES`, or [x, y] like the values of `PLACES`.
        margin: the pixels that stay free at every edge.
        draws: the random numbers of the image, which random places need.

    Raises:
        UsageError: the trigger does not fit.
    """
    room_y, room_x = (have - need - 2 * margin for have, need in zip(image.shape[:2], (height, width), strict=True))
    if min(room_y, room_x) < 0:
        raise UsageError(
            f"A trigger of {width}x{height} px with a margin of {margin} px does not fit an image of "
            f"{image.shape[1]}x{image.shape[0]} px.",
            "Give a smaller size, or one that is a share of the image: -p size=0.1",
        )
    if place == "random":
        assert draws is not None
        return margin + draws.integer(room_y + 1), margin + draws.integer(room_x + 1)
    x, y = PLACES[place] if isinstance(place, str) else place
    return margin + round(y * room_y), margin + round(x * room_x)
