"""Chooses poisoned images and covers: those whose keys have the lowest hashes with the seed, whatever their order."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from pathlib import Path

from diffclean.attacks.base import Labels
from diffclean.attacks.check import is_number
from diffclean.data.item import Item
from diffclean.data.keys import key_bytes
from diffclean.errors import UsageError


def check_target(
    target: str | None, labels: Labels, poison_target_class: bool | None, classes: Mapping[str, int], data: Path
) -> None:
    """Refuse a target class that is missing, unknown or not allowed.

    Raises:
        UsageError: one of these, or `poison_target_class` was given where there is no such choice.
    """
    known = f"It has: {', '.join(classes)}."
    if labels is Labels.ALL_TO_ALL:
        if target is not None:
            raise UsageError("All-to-all labels have no single target class.", "Leave `target` out.")
        if len(classes) < 2:
            raise UsageError(f"All-to-all labels need two classes; {data} has {len(classes)}.")
    elif target is None:
        raise UsageError(f"{labels.capitalize()} labels need a target class, given with `target`.", known)
    elif target not in classes:
        raise UsageError(f"{data} has no class {target!r}.", known)
    if poison_target_class is not None and labels is not Labels.ALL_TO_ONE:
        raise UsageError(
            f"Only all-to-one labels have a choice whether to poison the target class too; these are {labels}.",
            "Leave `poison_target_class` out.",
        )


def check_rates(rate: float, cover_rate: float, images: int) -> None:
    """Refuse rates that are not possible with that many images.

    Raises:
        UsageError: a rate poisons nothing or is not a share of the images, or both together leave no clean image.
    """
    count = round(rate * images) if is_number(rate) else 0
    if count >= images:
        raise UsageError(f"A poison rate of {rate:g} leaves no clean image among {images}.", _advice(images))
    if count < 1:
        raise UsageError(f"A poison rate of {rate:g} poisons none of {images} images.", _advice(images))
    if not (is_number(cover_rate) and 0 <= cover_rate < 1):
        raise UsageError(
            f"A cover rate of {cover_rate:g} is not a share of all images.",
            "Give a number from 0 to below 1, such as `cover_rate` 0.1",
        )
    if count + round(cover_rate * images) >= images:
        raise UsageError(
            f"A poison rate of {rate:g} and a cover rate of {cover_rate:g} leave no clean image among {images}.",
            "Give a lower `rate`, or a lower `cover_rate` (0 stands for no covers).",
        )


def _advice(images: int) -> str:
    """A rate that fits so many images: the usual one, or for a few what poisons one of them."""
    if images < 2:
        return "Give at least two images: one is poisoned, one stays clean."
    rate = next(rate for rate in (0.1, round(1 / images, 2)) if 1 <= round(rate * images) < images)
    return f"Try: `rate` {rate:g}"


def chosen_images(
    items: list[Item], rate: float, labels: Labels, target: str | None, poison_target_class: bool, seed: int
) -> list[str]:
    """The keys of the images to poison: `round(rate * all images)`.

    Raises:
        UsageError: the rate needs more images than the label mode allows.
    """
    count = round(rate * len(items))
    if labels is Labels.CLEAN:
        pool, which = [item.key for item in items if item.label == target], f"of class {target!r} (clean labels)"
    elif labels is Labels.ALL_TO_ALL or poison_target_class:
        pool, which = [item.key for item in items], "of any class"
    else:
        pool, which = [item.key for item in items if item.label != target], f"of classes other than {target!r}"
    if count > len(pool):
        raise UsageError(
            f"A poison rate of {rate:g} (of all images) needs {count} images {which}, but there are {len(pool)}.",
            f"Give at most `rate` {_most(len(pool), len(items))}.",
        )
    return _lowest(pool, count, b"diffclean-poison\0%d\0" % seed)


def chosen_covers(items: list[Item], poisoned: set[str], cover_rate: float, target: str | None, seed: int) -> list[str]:
    """The keys of the covers: `round(cover_rate * all images)` other images, never of the target class.

    With its own label, an image of the target class would be a poisoned image and not a cover.

    Raises:
        UsageError: the rate needs more images than there are.
    """
    count = round(cover_rate * len(items))
    pool = [item.key for item in items if item.key not in poisoned and item.label != target]
    if count > len(pool):
        raise UsageError(
            f"A cover rate of {cover_rate:g} (of all images) needs {count} images that are neither poisoned nor of the "
            f"target class, but there are {len(pool)}.",
            f"Give at most `cover_rate` {_most(len(pool), len(items))}, or a lower `rate`.",
        )
    return _lowest(pool, count, b"diffclean-cover\0%d\0" % seed)


def _lowest(keys: Iterable[str], count: int, start: bytes) -> list[str]:
    return sorted(keys, key=lambda key: hashlib.sha256(start + key_bytes(key)).digest())[:count]


def _most(count: int, total: int) -> str:
    """`count / total`, rounded down so that it is not too high again."""
    return f"{math.floor(count / total * 1e6) / 1e6:g}"
