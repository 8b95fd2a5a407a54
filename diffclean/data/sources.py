"""Where images come from: the `Source` Protocol, and folders of images."""

from __future__ import annotations

import logging
import os
import stat
from functools import cached_property
from pathlib import Path
from typing import Protocol

from diffclean.data import classes
from diffclean.data.beneath import Beneath, why_not_opened
from diffclean.data.formats import NAMED
from diffclean.data.item import Item, ReadError
from diffclean.data.keys import key_bytes
from diffclean.data.labels import check_layout, labelled_from
from diffclean.data.listing import Listing, file_problem
from diffclean.data.passed_over import PassedOver
from diffclean.errors import DiffcleanError

BYTE_LIMIT = 512 * 2**20
"""Holds an uncompressed picture of as many pixels as are decoded, in four bytes each."""

log = logging.getLogger(__name__)
_SAID: set[tuple[str, str]] = set()


class Source(Protocol):
    """A data set that can be listed and read, in any order and from several threads."""

    def items(self) -> list[Item]:
        """Every image, sorted by the raw bytes of its key; also those known to be unreadable (`problem`)."""

    def read(self, item: Item) -> bytes:
        """The encoded bytes of one image; raises `ReadError` when they cannot be had."""

    @property
    def class_to_idx(self) -> dict[str, int]:
        """Which number a label has; empty for a data set without labels."""


class ImageFolder:
    """A folder of images, flat or nested; the first folder of an image is its label.

    What has the extension of an image is taken, and so is any other file whose first bytes say that it is one. Hidden
    files, other files and folders that no person made are passed over, counted and told (`passed_over`). A symbolic
    link that leads to something inside the folder is followed, but not from inside a folder that was itself reached by
    a link: so a tree of links can neither loop nor explode. Links that lead out, loops, broken links, folders that
    cannot be listed, things that are not plain files and files over the byte limit become items with a `problem`: they
    are listed, never read. The folder is listed once, at the first use, and held open: what is read is what lies in it,
    whatever is put in its place.

    Args:
        root: the folder.
        byte_limit: the largest file that is read.
        label_from: where labels are, see `labels.labelled_from`; None: the first folder, where that can be meant.

    Raises:
        DiffcleanError: `root` is missing or not a folder (at once), or holds no image (on `items()`).
    """

    def __init__(self, root: Path | str, byte_limit: int | None = None, label_from: str | None = None) -> None:
        self.root = Path(root)
        self.label_from = label_from
        self.byte_limit = BYTE_LIMIT if byte_limit is None else byte_limit
        try:
            mode = self.root.stat().st_mode
        except OSError as error:
            raise DiffcleanError(f"{self.root}: {error.strerror}.", "Give the folder that holds the images.") from error
        if not stat.S_ISDIR(mode):
            raise DiffcleanError(f"{self.root} is not a folder.", "Give the folder that holds the images.")

    def items(self) -> list[Item]:
        """Every image, sorted by the raw bytes of its key."""
        return self._items

    @property
    def passed_over(self) -> PassedOver:
        """What is there and was not taken."""
        return self._listing.passed_over

    @cached_property
    def _below(self) -> Beneath:
        try:
            return Beneath(self.root)
        except OSError as error:
            raise DiffcleanError(f"{self.root} cannot be listed ({error.strerror}).") from error

    @cached_property
    def _listing(self) -> Listing:
        listing = Listing(self._below, self.byte_limit)
        listing.walk()
        for line in listing.passed_over.lines():
            if (str(self.root), line) not in _SAID:  # a verb may look at a folder more than once
                _SAID.add((str(self.root), line))
                log.warning("%s: %s", self.root, line)
        return listing

    @cached_property
    def _items(self) -> list[Item]:
        listing = self._listing
        if not listing.items:
            raise DiffcleanError(
                f"{self.root} holds no images ({listing.passed_over.kinds.total()} other files).",
                f"Expected {NAMED}, here or in sub-folders.",
            )
        items = sorted(listing.items, key=lambda item: key_bytes(item.key))
        return labelled_from(self.root, items, self.label_from)

    @cached_property
    def class_to_idx(self) -> dict[str, int]:
        """Which number a label has; empty for a folder without sub-folders.

        A class that holds nothing that is taken keeps its number.

        Raises:
            DiffcleanError: first folders are hardly meant as classes (`train`, `val`), and `label_from` says nothing.
        """
        if self.label_from is None:
            check_layout(self.root, self._items)
        labels = {item.label for item in self._items}
        return classes.class_to_idx(labels | (self.passed_over.labels if labels - {""} and self._by_folder else set()))

    @property
    def _by_folder(self) -> bool:
        return self.label_from in (None, "folder")

    def read(self, item: Item) -> bytes:
        """The encoded bytes of one image.

        Raises:
            ReadError: the item has a `problem`, or the file cannot be read (any more).
        """
        if item.problem is not None:
            raise ReadError(item.problem)
        try:
            descriptor = self._below.open(str(item.path))
            with os.fdopen(descriptor, "rb") as file:
                problem = file_problem(os.fstat(descriptor), self.byte_limit)
                data = b"" if problem else file.read(self.byte_limit + 1)
        except OSError as error:
            raise ReadError(why_not_opened(error)) from error
        if problem or len(data) > self.byte_limit:
            raise ReadError(problem or f"grew past the limit of {self.byte_limit} bytes while it was read")
        return data
