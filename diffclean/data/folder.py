"""The format of image folders: a file an image, and the first folder of its path is its label."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from diffclean.data import classes
from diffclean.data.apart import check_separate
from diffclean.data.atomic import Writer, contained, write_error
from diffclean.data.item import Item, ReadError
from diffclean.data.keys import check_collisions, path_from_key
from diffclean.data.listing import EXTENSIONS, Listing, file_problem
from diffclean.data.records import FolderRecords, Records
from diffclean.data.shard import Shard
from diffclean.data.sources import Description, Source
from diffclean.errors import DiffcleanError

BYTE_LIMIT = 256 * 2**20


def reads(where: str) -> bool:
    """A path is a folder as far as anybody knows; whether it is there is said when it is opened."""
    return "://" not in where


def open_source(where: str, **options: Any) -> ImageFolder:
    """See `ImageFolder`."""
    return ImageFolder(where, **options)


def open_sink(where: str, **options: Any) -> FolderSink:
    """See `FolderSink`."""
    return FolderSink(where, **options)


class ImageFolder:
    """A folder of images, flat or nested.

    Hidden files and folders are skipped, and so is whatever has no image extension. A symbolic link that leads to
    something inside the folder is followed, but not from inside a folder that was itself reached by a link: so a tree
    of links can neither loop nor explode. Links that lead out, loops, broken links, folders that cannot be listed,
    things that are not plain files and files over the byte limit become items with a `problem`: they are listed, never
    read.

    Args:
        root: the folder.
        byte_limit: the largest file that is read. None: 256 MiB.

    Raises:
        DiffcleanError: `root` is missing or not a folder (at once), or holds no image (when it is listed).
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

    @property
    def where(self) -> str:
        """The folder."""
        return str(self.root)

    def parts(self) -> Sequence[str]:
        """The whole folder is one part."""
        return ("",)

    def stream(self, part: str = "") -> Iterator[Item]:
        """Every image, sorted by the raw bytes of its key; memory is that of the largest folder's names."""
        listing = Listing(os.path.realpath(self.root), self.byte_limit)
        empty = True
        for item in listing.walk():
            empty = False
            yield item
        if empty:
            raise DiffcleanError(
                f"{self.root} holds no images ({listing.others} other files).",
                f"Expected files ending in {', '.join(sorted(EXTENSIONS))}, here or in sub-folders.",
            )

    def items(self) -> list[Item]:
        """Every image; listed at the first call."""
        return self._items

    @cached_property
    def _items(self) -> list[Item]:
        return list(self.stream())

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
        return _plain_bytes(item.where, self.byte_limit)

    def describe(self) -> Description:
        """Its real path, and the limit."""
        return Description("folder", os.path.realpath(self.root), {"byte_limit": self.byte_limit})


class FolderSink:
    """A folder of images that is written.

    Args:
        root: made if missing.
        owner: the name of the shard that writes; marks its temporary files.
    """

    def __init__(self, root: Path | str, owner: str = "") -> None:
        self.root = Path(root)
        self.records: Records = FolderRecords(self.root)
        self._writer = Writer(self.root, owner)
        self._is_inside = lru_cache(maxsize=4096)(self._leads_inside)

    @property
    def where(self) -> str:
        """The folder."""
        return str(self.root)

    def for_shard(self, shard: Shard) -> FolderSink:
        """The same folder."""
        return FolderSink(self.root, shard.name)

    def check_apart(self, source: Source) -> None:
        """See `check_separate`."""
        check_separate(Path(source.where), self.root)

    def check_keys(self, keys: Iterable[str], variants: int, extension: str) -> None:
        """See `check_collisions`."""
        check_collisions(keys, variants=variants, extension=extension)

    def write(self, key: str, data: bytes) -> None:
        """Write one image, making its folders."""
        self._writer.write(key, data)

    def sync(self) -> None:
        """Make the names of what was written durable."""
        self._writer.sync()

    def size(self, key: str) -> int | None:
        """Of a plain file that is reached without leaving the folder; None for anything else."""
        path = self.root / path_from_key(key)
        if not self._is_inside(path.parent):
            return None
        try:
            found = path.lstat()
        except OSError:
            return None
        return found.st_size if stat.S_ISREG(found.st_mode) else None

    def read(self, key: str) -> bytes:
        """The bytes of a plain file."""
        return _plain_bytes(contained(self.root, key), None)

    def remove(self, key: str) -> None:
        """Remove the file; its folder stays."""
        path = contained(self.root, key)
        try:
            path.unlink(missing_ok=True)
        except NotADirectoryError:
            return
        except OSError as error:
            raise write_error(error, path) from error

    def describe(self) -> Description:
        """Its real path, and who writes."""
        return Description("folder", os.path.realpath(self.root), {"owner": self._writer.owner})

    def _leads_inside(self, folder: Path) -> bool:
        """Asked once a folder: looking through a million paths for links takes minutes."""
        root, real = Path(os.path.realpath(self.root)), Path(os.path.realpath(folder))
        return real == root or root in real.parents


def _plain_bytes(path: Path | str, byte_limit: int | None) -> bytes:
    """What was a plain file when listed may be a link or a pipe by now: neither followed nor waited for."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            found = os.fstat(descriptor)
            limit = found.st_size if byte_limit is None else byte_limit
            problem = file_problem(found, limit)
            data = b"" if problem else file.read(limit + 1)
    except OSError as error:
        raise ReadError(f"cannot be read ({error.strerror})") from error
    if problem or len(data) > limit:
        raise ReadError(problem or f"grew past the limit of {limit} bytes while it was read")
    return data
