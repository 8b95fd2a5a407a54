"""Computes the numbers for small drawings; the templates turn them into SVG."""

from __future__ import annotations

import math
from dataclasses import dataclass

from diffclean.report.facts import ClassScores

WIDTH, HEIGHT = 240.0, 56.0
"""Of the drawing of a histogram, in its own units."""
_GAP = 1.5


@dataclass(frozen=True)
class Bar:
    """A rectangle of a histogram."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Histogram:
    """The histogram of the scores of a class.

    Heights grow with the square root of the count, so that a few images stay visible beside many.

    Attributes:
        kept: the bars of the images that are kept.
        listed: the bars of the images that are listed; they stand on the bars of the kept images.
        limit: the position of the lowest listed score, in the units of the drawing. None if no image is listed.
        low: the score on the left.
        high: the score on the right.
    """

    kept: tuple[Bar, ...]
    listed: tuple[Bar, ...]
    limit: float | None
    low: float
    high: float


def histogram(judged: ClassScores) -> Histogram | None:
    """Draw the scores of a class; return None if it has no scores or if a count makes no sense."""
    bins = len(judged.kept)
    span = judged.high - judged.low
    if not bins or len(judged.listed) != bins or not span > 0 or min(*judged.kept, *judged.listed, 0) < 0:
        return None
    tallest = math.sqrt(max(map(sum, zip(judged.kept, judged.listed, strict=True))) or 1)
    step = WIDTH / bins
    kept, listed = [], []
    for number, (below, above) in enumerate(zip(judged.kept, judged.listed, strict=True)):
        low = HEIGHT * math.sqrt(below) / tallest
        high = HEIGHT * math.sqrt(below + above) / tallest
        x, width = number * step + _GAP / 2, step - _GAP
        if below:
            kept.append(Bar(x, HEIGHT - low, width, low))
        if above:
            listed.append(Bar(x, HEIGHT - high, width, high - low))
    limit = None
    if judged.lowest_listed is not None:
        limit = WIDTH * min(1.0, max(0.0, (judged.lowest_listed - judged.low) / span))
    return Histogram(tuple(kept), tuple(listed), limit, judged.low, judged.high)


@dataclass(frozen=True)
class Dial:
    """The separation of a class beside its limit, both in percent of the scale."""

    value: float
    limit: float


def dial(judged: ClassScores) -> Dial | None:
    """Draw the separation beside its limit; return None if either is not known."""
    if judged.separation is None or judged.limit is None or judged.too_few:
        return None
    scale = 1.15 * max(abs(judged.separation), abs(judged.limit))
    return Dial(*(100 * max(0.0, value) / scale for value in (judged.separation, judged.limit))) if scale > 0 else None
