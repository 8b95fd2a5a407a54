"""Estimates the cost of a data set before the work: the number of windows, from the headers of a sample."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

from diffclean.data.decode import size_of
from diffclean.data.item import Item, ItemError
from diffclean.data.sources import Source
from diffclean.variation.settings import Settings
from diffclean.variation.windows import layout

_SAMPLE = 64


@dataclass(frozen=True)
class Cost:
    """What a sample of the pictures shows.

    Attributes:
        sampled: the number of pictures in the sample.
        windows: the mean number of windows of a picture.
        most: the number of windows of the largest picture.
        coarsened: the number of pictures whose longer side is more than twice the `--detail`.
    """

    sampled: int = 0
    windows: float = 1.0
    most: int = 1
    coarsened: int = 0


def cost_of(source: Source, items: Iterable[Item], count: int, settings: Settings, side: int) -> Cost:
    """Read the headers of some pictures, evenly spread, because a folder may begin with its smallest ones.

    Args:
        source: the data set.
        items: the pictures that are to be regenerated.
        count: the number of items.
        settings: the resolved settings.
        side: S, the side of the model's square.
    """
    assert settings.detail is not None
    counts, coarsened = [], 0
    for item in itertools.islice(items, 0, None, max(1, count // _SAMPLE)):
        try:
            width, height = size_of(source.read(item), settings.limits)
        except ItemError:
            continue
        plan = layout(width, height, side, settings.detail, settings.fit)
        counts.append(len(plan.windows))
        coarsened += max(plan.placement.kept) > 2 * max(settings.detail, side)
    if not counts:
        return Cost()
    return Cost(len(counts), sum(counts) / len(counts), max(counts), coarsened)


def in_words(cost: Cost, variations: int, settings: Settings, side: int) -> str:
    """The cost as a sentence for the log; "" if every picture is one window."""
    if cost.windows == 1:
        return ""
    return (
        f"A picture has {cost.windows:.0f} windows of {side} px on average (`detail` {settings.detail}): about "
        f"{round(cost.windows * variations):,} windows for {variations:,} variations."
    )


def loss_in_words(cost: Cost, settings: Settings) -> str:
    """A warning for photographs that are much larger than `--detail`; "" if there are none."""
    if not cost.coarsened:
        return ""
    return (
        f"{cost.coarsened} of {cost.sampled} pictures in a sample are more than twice as large as the "
        f"{settings.detail} px (`detail`) to which they are reduced, so their variations will lose fine detail. A "
        "larger `detail` keeps more of it, takes longer, and lets more of a trigger pass."
    )
