"""Where images come from: the `Source` Protocol, and folders of images."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Protocol

from diffclean.data import classes
from diffclean.data.item import Item, ReadError
from diffclean.data.keys import key_bytes, key_from_path, label_of
from diffclean.errors import DiffcleanError

EXTENSIONS = frozenset({"jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff", "gif", "ppm", "pgm", "pbm"})
BYTE_LIMIT = 256 * 2**20


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

    Hidden files and folders are skipped, and so is whatever has no image extension. A symbolic link that leads to
    something inside the folder is followed, but not from inside a folder that was itself reached by a link: so a tree
    of links can neither loop nor explode. Links that lead out, loops, broken links, folders that cannot be listed,
    things that are not plain files and files over the byte limit become items with a `problem`: they are listed, never
    read. The folder is listed once, at the first use.

    Args:
        root: the folder.
        byte_limit: the largest file that is read.

    Raises:
        DiffcleanError: `root` is missing or not a folder (at once), or holds no image (on `items()`).
    """

    def __init__(self, root: Path | str, byte_limit: int | None = None) -> None:
        self.root = Path(root)
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

    @cached_property
    def _items(self) -> list[Item]:
        listing = _Listing(Path(os.path.realpath(self.root)), self.byte_limit)
        listing.walk()
        if not listing.items:
            raise DiffcleanError(
                f"{self.root} holds no images ({listing.others} other files).",
                f"Expected files ending in {', '.join(sorted(EXTENSIONS))}, here or in sub-folders.",
            )
        return sorted(listing.items, key=lambda item: key_bytes(item.key))

    @cached_property
    def class_to_idx(self) -> dict[str, int]:
        """Which number a label has; empty for a folder without sub-folders."""
        return classes.class_to_idx(item.label for item in self._items)

    def read(self, item: Item) -> bytes:
        """The encoded bytes of one image.

        Raises:
            ReadError: the item has a `problem`, or the file cannot be read (any more).
        """
        if item.problem is not None:
            raise ReadError(item.problem)
        try:
            # What was a plain file when listed may be a link or a pipe by now: neither followed nor waited for.
            descriptor = os.open(item.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            with os.fdopen(descriptor, "rb") as file:
                problem = _file_problem(os.fstat(descriptor), self.byte_limit)
                data = b"" if problem else file.read(self.byte_limit + 1)
        except OSError as error:
            raise ReadError(f"cannot be read ({error.strerror})") from error
        if problem or len(data) > self.byte_limit:
            raise ReadError(problem or f"grew past the limit of {self.byte_limit} bytes while it was read")
        return data


@dataclass
class _Listing:
    """One walk over a folder."""

    root: Path
    byte_limit: int
    items: list[Item] = field(default_factory=list)
    others: int = 0
    _todo: list[tuple[str, str, bool]] = field(default_factory=list)  # real folder, its path in keys, through a link?

    def walk(self) -> None:
        # A list of what is left to do, not recursion: folders can be nested deeper than Python's stack.
        self._todo = [(str(self.root), "", False)]
        while self._todo:
            folder, relative, linked = self._todo.pop()
            try:
                with os.scandir(folder) as entries:
                    for entry in entries:
                        if not entry.name.startswith("."):
                            self._entry(entry, os.path.join(relative, entry.name), linked)  # noqa: PTH118 - hot
            except OSError as error:
                if not relative:
                    raise DiffcleanError(f"{self.root} cannot be listed ({error.strerror}).") from error
                self._add(relative, folder, f"folder cannot be listed ({error.strerror})")

    def _entry(self, entry: os.DirEntry[str], relative: str, linked: bool) -> None:
        image = entry.name.rpartition(".")[2].lower() in EXTENSIONS and "." in entry.name
        if entry.is_symlink():
            self._link(entry.path, relative, linked, image)
        elif entry.is_dir(follow_symlinks=False):
            self._todo.append((entry.path, relative, linked))
        elif image:
            self._file(entry.path, relative)
        else:
            self.others += 1

    def _link(self, path: str, relative: str, linked: bool, image: bool) -> None:
        try:
            target = os.path.realpath(path, strict=True)
            is_folder = Path(target).is_dir()
        except OSError as error:
            # A broken link with another extension is some other file; without one it may have been a whole class.
            if image or not Path(path).suffix:
                self._add(relative, path, f"broken link or link loop ({error.strerror})")
            else:
                self.others += 1
            return
        if not is_folder and not image:
            self.others += 1
        elif not _inside(target, str(self.root)):
            self._add(relative, path, f"link leads out of the source, to {target!a}")
        elif not is_folder:
            self._file(target, relative)
        elif _inside(os.path.dirname(path), target):  # noqa: PTH120 - a str, as the rest here
            self._add(relative, path, "link loop: leads to a folder that holds it")
        elif linked:
            self._add(relative, path, "link to a folder inside a linked folder: links are followed once")
        else:
            self._todo.append((target, relative, True))

    def _file(self, path: str, relative: str) -> None:
        try:
            problem = _file_problem(os.lstat(path), self.byte_limit)
        except OSError as error:
            problem = f"cannot be read ({error.strerror})"
        self._add(relative, path, problem)

    def _add(self, relative: str, path: str, problem: str | None) -> None:
        key = key_from_path(relative)
        self.items.append(Item(key, Path(path), label_of(key), problem))


def _file_problem(found: os.stat_result, byte_limit: int) -> str | None:
    if not stat.S_ISREG(found.st_mode):
        return "not a plain file"
    if found.st_size > byte_limit:
        return f"file of {found.st_size} bytes; the limit is {byte_limit}"
    return None


def _inside(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")
