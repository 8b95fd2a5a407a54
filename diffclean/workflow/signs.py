"""Draws road signs in the style of the Vienna Convention, one face per class. A picture is a pure function of its seed.

This module draws the faces large and flat; `scenes` turns them into photographs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from PIL import Image, ImageDraw, ImageFont

SIDE = 256
"""Side of a face, in pixels."""
RED, BLUE, YELLOW, BLACK, WHITE = (196, 24, 33), (21, 76, 156), (245, 190, 25), (25, 25, 28), (245, 245, 240)

Colour = tuple[int, int, int]
Points = Sequence[tuple[float, float]]


class Face:
    """A transparent square to draw on, in units of its side, with the origin in the middle and y downwards."""

    def __init__(self) -> None:
        self.image = Image.new("RGBA", (SIDE, SIDE), (0, 0, 0, 0))
        self._draw = ImageDraw.Draw(self.image)

    def polygon(self, points: Points, colour: Colour) -> None:
        """Fill a polygon."""
        self._draw.polygon([_pixel(x, y) for x, y in points], fill=colour)

    def disc(self, radius: float, colour: Colour, x: float = 0, y: float = 0) -> None:
        """Fill a disc."""
        self._draw.ellipse((*_pixel(x - radius, y - radius), *_pixel(x + radius, y + radius)), fill=colour)

    def ring(self, radius: float, width: float, colour: Colour, x: float = 0, y: float = 0) -> None:
        """Draw a circle as a line; `radius` is its outer edge."""
        box = (*_pixel(x - radius, y - radius), *_pixel(x + radius, y + radius))
        self._draw.ellipse(box, outline=colour, width=round(width * SIDE))

    def line(self, points: Points, width: float, colour: Colour) -> None:
        """Draw a line with round corners and ends."""
        pixels = [_pixel(x, y) for x, y in points]
        self._draw.line(pixels, fill=colour, width=round(width * SIDE), joint="curve")
        for x, y in (points[0], points[-1]):
            self.disc(width / 2, colour, x, y)

    def bar(self, width: float, height: float, colour: Colour, y: float = 0) -> None:
        """Draw a horizontal bar in the middle."""
        self._draw.rectangle((*_pixel(-width / 2, y - height / 2), *_pixel(width / 2, y + height / 2)), fill=colour)

    def text(self, text: str, height: float, colour: Colour) -> None:
        """Draw bold letters in the middle."""
        font = ImageFont.load_default(size=height * SIDE)
        stroke = round(0.018 * SIDE)
        self._draw.text(_pixel(0, 0), text, colour, font, anchor="mm", stroke_width=stroke, stroke_fill=colour)

    def arrow(self, points: Points, width: float, colour: Colour) -> None:
        """Draw a line that ends in an arrowhead."""
        self.line(points, width, colour)
        (x0, y0), (x1, y1) = points[-2], points[-1]
        angle = math.atan2(y1 - y0, x1 - x0)
        tip = (x1 + 1.2 * width * math.cos(angle), y1 + 1.2 * width * math.sin(angle))
        wings = [
            (x1 + 1.3 * width * math.cos(angle + turn), y1 + 1.3 * width * math.sin(angle + turn)) for turn in (2, -2)
        ]
        self.polygon([tip, *wings], colour)


def _pixel(x: float, y: float) -> tuple[float, float]:
    return ((x + 0.5) * (SIDE - 1), (y + 0.5) * (SIDE - 1))


def _regular(corners: int, radius: float, turn: float) -> Points:
    angles = [turn + 2 * math.pi * corner / corners for corner in range(corners)]
    return [(radius * math.cos(angle), radius * math.sin(angle)) for angle in angles]


def _triangle(face: Face, up: bool = True) -> None:
    for radius, colour in ((0.5, RED), (0.36, WHITE)):
        turn = -math.pi / 2 if up else math.pi / 2
        shift = 0.07 if up else -0.07
        face.polygon([(x, y + shift) for x, y in _regular(3, radius, turn)], colour)


def _speed(limit: str) -> Callable[[Face], None]:
    def draw(face: Face) -> None:
        face.disc(0.48, RED)
        face.disc(0.36, WHITE)
        face.text(limit, 0.42 if len(limit) < 3 else 0.32, BLACK)

    return draw


def _arrow(points: Points) -> Callable[[Face], None]:
    def draw(face: Face) -> None:
        face.disc(0.48, BLUE)
        face.arrow(points, 0.1, WHITE)

    return draw


def _stop(face: Face) -> None:
    face.polygon(_regular(8, 0.5, math.pi / 8), WHITE)
    face.polygon(_regular(8, 0.46, math.pi / 8), RED)
    face.text("STOP", 0.27, WHITE)


def _no_entry(face: Face) -> None:
    face.disc(0.48, RED)
    face.bar(0.66, 0.15, WHITE)


def _priority(face: Face) -> None:
    for radius, colour in ((0.5, WHITE), (0.46, BLACK), (0.44, WHITE), (0.31, YELLOW)):
        face.polygon(_regular(4, radius, 0), colour)


def _danger(face: Face) -> None:
    _triangle(face)
    face.line([(0, -0.1), (0, 0.09)], 0.07, BLACK)
    face.disc(0.04, BLACK, 0, 0.19)


def _walker(face: Face, colour: Colour, y: float = 0.0) -> None:
    face.disc(0.04, colour, 0, y - 0.13)
    for points in (
        [(0, -0.06), (-0.01, 0.06)],
        [(-0.01, 0.06), (-0.08, 0.17)],
        [(-0.01, 0.06), (0.07, 0.17)],
        [(-0.1, 0.03), (0, -0.05), (0.09, 0.03)],
    ):
        face.line([(px, py + y) for px, py in points], 0.035, colour)


def _walkers_ahead(face: Face) -> None:
    _triangle(face)
    _walker(face, BLACK, 0.07)


def _crossroads(face: Face) -> None:
    _triangle(face)
    face.line([(-0.1, 0), (0.1, 0.2)], 0.06, BLACK)
    face.line([(0.1, 0), (-0.1, 0.2)], 0.06, BLACK)


def _bumps(face: Face) -> None:
    _triangle(face)
    face.disc(0.075, BLACK, -0.08, 0.16)
    face.disc(0.075, BLACK, 0.08, 0.16)
    face.polygon([(-0.18, 0.15), (0.18, 0.15), (0.18, 0.25), (-0.18, 0.25)], WHITE)
    face.line([(-0.17, 0.17), (0.17, 0.17)], 0.03, BLACK)


def _bend(face: Face) -> None:
    _triangle(face)
    face.arrow([(-0.05, 0.22), (-0.05, 0.06), (0.06, 0), (0.06, -0.07)], 0.055, BLACK)


def _bicycles(face: Face) -> None:
    face.disc(0.48, BLUE)
    for x in (-0.19, 0.19):
        face.ring(0.13, 0.03, WHITE, x, 0.09)
    for points in (
        [(-0.19, 0.09), (-0.08, -0.1), (0.1, -0.1), (0, 0.09), (-0.08, -0.1)],
        [(-0.19, 0.09), (0, 0.09)],
        [(0.19, 0.09), (0.08, -0.18), (0.16, -0.2)],
    ):
        face.line(points, 0.03, WHITE)


def _walkers_only(face: Face) -> None:
    face.disc(0.48, BLUE)
    _walker(face, WHITE, -0.02)


def _roundabout(face: Face) -> None:
    face.disc(0.48, BLUE)
    for start in (0.2, 0.2 + 2 * math.pi / 3, 0.2 + 4 * math.pi / 3):
        angles = [start + 1.35 * part / 6 for part in range(7)]
        face.arrow([(0.25 * math.cos(angle), 0.25 * math.sin(angle)) for angle in angles], 0.07, WHITE)


def _parking(face: Face) -> None:
    face.polygon([(-0.46, -0.46), (0.46, -0.46), (0.46, 0.46), (-0.46, 0.46)], BLUE)
    face.text("P", 0.68, WHITE)


def _no_stopping(face: Face) -> None:
    face.disc(0.48, RED)
    face.disc(0.38, BLUE)
    face.line([(-0.27, -0.27), (0.27, 0.27)], 0.09, RED)
    face.line([(0.27, -0.27), (-0.27, 0.27)], 0.09, RED)


def _no_overtaking(face: Face) -> None:
    face.disc(0.48, RED)
    face.disc(0.36, WHITE)
    for x, colour in ((-0.14, RED), (0.14, BLACK)):
        face.polygon([(x - 0.1, -0.02), (x - 0.06, -0.12), (x + 0.06, -0.12), (x + 0.1, -0.02)], colour)
        face.polygon([(x - 0.12, -0.03), (x + 0.12, -0.03), (x + 0.12, 0.09), (x - 0.12, 0.09)], colour)


def _end_of_limits(face: Face) -> None:
    face.disc(0.48, BLACK)
    face.disc(0.45, WHITE)
    for shift in (-0.12, -0.04, 0.04, 0.12):
        face.line([(-0.24 + shift, 0.24 + shift), (0.24 + shift, -0.24 + shift)], 0.03, BLACK)


FACES: dict[str, Callable[[Face], None]] = {
    "ahead-only": _arrow([(0, 0.28), (0, -0.2)]),
    "bend": _bend,
    "bicycles-only": _bicycles,
    "bumps": _bumps,
    "crossroads": _crossroads,
    "danger": _danger,
    "end-of-limits": _end_of_limits,
    "limit-30": _speed("30"),
    "limit-50": _speed("50"),
    "limit-80": _speed("80"),
    "limit-120": _speed("120"),
    "no-entry": _no_entry,
    "no-overtaking": _no_overtaking,
    "no-stopping": _no_stopping,
    "parking": _parking,
    "priority-road": _priority,
    "roundabout": _roundabout,
    "stop": _stop,
    "turn-left": _arrow([(0.14, 0.28), (0.14, -0.06), (-0.2, -0.06)]),
    "turn-right": _arrow([(-0.14, 0.28), (-0.14, -0.06), (0.2, -0.06)]),
    "walkers-ahead": _walkers_ahead,
    "walkers-only": _walkers_only,
    "yield": lambda face: _triangle(face, up=False),
}
"""Class -> how its face is drawn."""


def face_of(name: str) -> Image.Image:
    """Return the (SIDE, SIDE) RGBA face of a class, transparent around the sign."""
    face = Face()
    FACES[name](face)
    return face.image
