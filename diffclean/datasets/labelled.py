"""The classes of a labelled data set."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from diffclean.data.classes import check_labelled, checked_classes
from diffclean.data.json_file import read_json
from diffclean.data.places import place_of
from diffclean.data.sources import Source
from diffclean.errors import DiffcleanError, UsageError

_STORED_IN = ("run.json", "poison.json")
_LIMIT_BYTES = 512 * 2**20
"""The largest of these files, for a `poison.json` of about one and a half million images."""


def stored_classes(root: Path) -> dict[str, int] | None:
    """The `class_to_idx` that diffclean stored with a data set (`run.json`, `poison.json`); None if it stored none."""
    for path in (place_of(root) / name for name in _STORED_IN):
        if path.is_file():
            content = read_json(path, _LIMIT_BYTES, infinities=True, file_names=True)
            if not isinstance(content, dict):
                raise DiffcleanError(f"{path} is damaged: it holds a {type(content).__name__}.")
            if stored := content.get("class_to_idx"):
                return checked_classes(stored)
    return None


def check_classes(source: Source, classes: Mapping[str, int]) -> None:
    """Refuse images without a class folder, and folders that are not classes.

    Raises:
        DiffcleanError: some images have no label.
        UsageError: the data have a class that `classes` does not have.
    """
    check_labelled(source.where, source.items())
    if unknown := sorted({item.label for item in source.items()} - set(classes)):
        raise UsageError(
            f"{source.where} has classes that are not expected: {named(unknown, 5)}.", f"Expected: {named(classes)}."
        )


def named(names: Mapping[str, int] | list[str], shown: int = 10) -> str:
    """A list of names such as `ant, bee, cat and 7 more`."""
    every = list(names)
    return ", ".join(every[:shown]) + (f" and {len(every) - shown} more" if len(every) > shown else "")
