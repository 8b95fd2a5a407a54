"""`class_to_idx`: which number a label has. Stored with every data set, since libraries sort labels differently."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Mapping

from diffclean.data.item import Item
from diffclean.data.keys import key_bytes
from diffclean.errors import DiffcleanError

_EXPECTED = "Expected DATA/<class>/image; in other formats a label beside each image, see `label_from`."
UNLABELLED = "no-labels"
"""The folder of images that are to be taken for no class: what lies in it is refused wherever labels are read."""


def class_to_idx(labels: Iterable[str]) -> dict[str, int]:
    """Labels, sorted by their raw bytes, to 0, 1, 2 ... The empty label (an image in no folder) is no class."""
    return {label: index for index, label in enumerate(sorted({*labels} - {""}, key=key_bytes))}


def numbered(labels: Iterable[str]) -> dict[str, int]:
    """The same, but labels that are all whole numbers are sorted as numbers: `2` comes before `10`."""
    names = {*labels} - {""}
    if all(name.isascii() and name.isdigit() for name in names):
        return {label: index for index, label in enumerate(sorted(names, key=lambda name: (int(name), name)))}
    return class_to_idx(names)


def check_labelled(where: object, items: Iterable[Item]) -> None:
    """Refuse images that lie in no class folder, and those that are marked to have no label.

    Raises:
        DiffcleanError: how many, and the first of them.
    """
    items = list(items)
    check_not_marked(where, (item.key for item in items))
    if flat := [item for item in items if item.label == ""]:
        why = f": {flat[0].key}: {flat[0].problem}" if flat[0].problem else f", such as {flat[0].key}"
        raise DiffcleanError(f"{where} has {len(flat)} images in no class folder{why}.", _EXPECTED)


def check_not_marked(where: object, keys: Iterable[str]) -> None:
    """Refuse images that are marked to have no label.

    Raises:
        DiffcleanError: how many there are.
    """
    if count := sum(key.startswith(f"{UNLABELLED}/") for key in keys):
        raise DiffcleanError(
            f"{where} has {count} images without labels, in the folder {UNLABELLED}/.",
            "They were made with `variate --labels none`. `distill` needs no labels (`alpha` 1). Or make them "
            "with labels: diffclean variate SOURCE --labels CLASSIFIER, which is the file of a classifier.",
        )


def checked_classes(stored: object) -> dict[str, int]:
    """A `class_to_idx` that was read from a file, in order of its numbers.

    Raises:
        DiffcleanError: it is not one number, from 0 up without a gap, for each label.
    """
    if isinstance(stored, Mapping):
        classes = dict(stored)
        numbers = [number for number in classes.values() if type(number) is int]
        if sorted(numbers) == list(range(len(classes))) and all(isinstance(label, str) for label in classes):
            return dict(sorted(classes.items(), key=lambda pair: pair[1]))
    raise DiffcleanError(
        f"class_to_idx should give each label one number from 0 up without a gap; found {reprlib.repr(stored)}."
    )
