"""`class_to_idx`: the number of each label.

It is stored with every data set, because libraries sort labels differently.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Mapping

from diffclean.data.item import Item
from diffclean.data.keys import key_bytes
from diffclean.errors import DiffcleanError

_EXPECTED = "Expected DATA/<class>/image; in other formats a label beside each image, see `label_from`."
UNLABELLED = "no-labels"
"""The folder of images that belong to no class. Everything in it is refused wherever labels are read."""


def class_to_idx(labels: Iterable[str]) -> dict[str, int]:
    """Number the labels 0, 1, 2 ... in the order of their raw bytes.

    The empty label (an image in no folder) is not a class.
    """
    return {label: index for index, label in enumerate(sorted({*labels} - {""}, key=key_bytes))}


def numbered(labels: Iterable[str]) -> dict[str, int]:
    """The same, but labels that are all whole numbers are sorted as numbers: `2` comes before `10`."""
    names = {*labels} - {""}
    if all(name.isascii() and name.isdigit() for name in names):
        return {label: index for index, label in enumerate(sorted(names, key=lambda name: (int(name), name)))}
    return class_to_idx(names)


def check_labelled(where: object, items: Iterable[Item]) -> None:
    """Refuse images that lie in no class folder and images that are marked as having no label.

    Raises:
        DiffcleanError: says how many such images there are, and names the first.
    """
    items = list(items)
    check_not_marked(where, (item.key for item in items))
    if flat := [item for item in items if item.label == ""]:
        why = f": {flat[0].key}: {flat[0].problem}" if flat[0].problem else f", such as {flat[0].key}"
        raise DiffcleanError(f"{where} has {len(flat)} images in no class folder{why}.", _EXPECTED)


def check_not_marked(where: object, keys: Iterable[str]) -> None:
    """Refuse images that are marked as having no label.

    Raises:
        DiffcleanError: says how many such images there are.
    """
    if count := sum(key.startswith(f"{UNLABELLED}/") for key in keys):
        raise DiffcleanError(
            f"{where} has {count} images without labels, in the folder {UNLABELLED}/.",
            "They were made with `variate --labels none`. `distill` needs no labels (`alpha` 1). To make variations "
            "with labels, type: diffclean variate SOURCE --labels CLASSIFIER (the file of a classifier)",
        )


def checked_classes(stored: object) -> dict[str, int]:
    """Check a `class_to_idx` that was read from a file and return it in the order of its numbers.

    Raises:
        DiffcleanError: the labels are not numbered from 0 up without a gap.
    """
    if isinstance(stored, Mapping):
        classes = dict(stored)
        numbers = [number for number in classes.values() if type(number) is int]
        if sorted(numbers) == list(range(len(classes))) and all(isinstance(label, str) for label in classes):
            return dict(sorted(classes.items(), key=lambda pair: pair[1]))
    raise DiffcleanError(f"class_to_idx must number the labels from 0 up without a gap; found {reprlib.repr(stored)}.")
