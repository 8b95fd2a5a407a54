"""What a data set costs, before the work: how many windows its pictures have, from the headers of a sample."""

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
    """What a sample of the pictures says.

    Attributes:
        sampled: pictures that were looked at.
        windows: of a picture, on average.
        most: windows of the largest of them.
        coarsened: how many of them have a longer side of more than twice the `--detail`.
    """

    sampled: int = 0
    windows: float = 1.0
    most: int = 1
    coarsened: int = 0


def cost_of(source: Source, items: Iterable[Item], count: int, settings: Settings, side: int) -> Cost:
    """Read the headers of some pictures, evenly spread: a folder may begin with its smallest ones.

    Args:
        source: where the pictures are.
        items: which of them are to be made.
        count: how many items there are.
        settings: resolved.
        side: S, of the model's square.
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
    """One sentence for people; "" where every picture is one window."""
    if cost.windows == 1:
        return ""
    return (
        f"A picture is looked at in {cost.windows:.0f} windows of {side} px on average (`detail` {settings.detail}): "
        f"about {round(cost.windows * variations):,} windows for {variations:,} variations."
    )


def loss_in_words(cost: Cost, settings: Settings) -> str:
    """What people whose photographs are much larger than `--detail` should know first; "" where there are none."""
    if not cost.coarsened:
        return ""
    return (
        f"{cost.coarsened} of {cost.sampled} pictures that were tried are more than twice as large as the "
        f"{settings.detail} px (`detail`) at which they are looked at: what is finer will be lost in their variations. "
        "A larger `detail` keeps more of it, takes longer, and lets more of a trigger pass."
    )
