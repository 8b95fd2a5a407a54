"""The format of image folders: one file per image, and the first folder of its path is its label."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffclean.data.address import is_address
from diffclean.data.apart import check_all_separate
from diffclean.data.atomic import Writer, contained, write_error
from diffclean.data.beneath import Beneath, why_not_opened
from diffclean.data.bucket_sink import BucketSink
from diffclean.data.bucket_source import BucketFolder
from diffclean.data.formats import NAMED
from diffclean.data.item import Item, ReadError
from diffclean.data.keys import check_collisions, path_from_key
from diffclean.data.label_table import Table, table_beside
from diffclean.data.labels import Layout, labelled_from
from diffclean.data.listing import Listing, file_problem
from diffclean.data.manifest import Row
from diffclean.data.passed_over import PassedOver
from diffclean.data.records import FolderRecords, Records
from diffclean.data.shard import Shard
from diffclean.data.sinks import say_left_out
from diffclean.data.sources import BYTE_LIMIT, Description, Source
from diffclean.errors import DiffcleanError

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger(__name__)
_SAID: set[tuple[str, str]] = set()


def reads(where: str) -> bool:
    """Whether `where` can be a folder: everything can. Whether the folder exists is checked when it is opened."""
    return True


def open_source(where: str, **options: Any) -> ImageFolder | BucketFolder:
    """See `ImageFolder`, and `BucketFolder` for an address."""
    return BucketFolder(where, **options) if is_address(where) else ImageFolder(where, **options)


def open_sink(where: str, **options: Any) -> FolderSink | BucketSink:
    """See `FolderSink`, and `BucketSink` for an address."""
    return BucketSink(where, **options) if is_address(where) else FolderSink(where, **options)


@dataclass
class _Found:
    """What a complete listing found in addition to the images."""

    passed_over: PassedOver
    layout: Layout = field(default_factory=Layout)
    labels: set[str] = field(default_factory=set)


class ImageFolder:
    """A folder of images, flat or nested; the first folder in the path of an image is its label.

    Every file with the extension of an image is read, and so is any other file whose first bytes are those of an image.
    Hidden files, other files and folders made by machines are passed over, counted and reported (`passed_over`). A
    symbolic link that leads to something inside the folder is followed, but not from inside a folder that was itself
    reached through a link, so that links can neither loop nor multiply. Links that lead out of the folder, loops,
    broken links, folders that cannot be listed, special files and files over the byte limit become items with a
    `problem`: they are listed but never read. The folder is held open from its first use on, so that another folder
    that takes its place is not read.

    Args:
        root: the folder.
        byte_limit: the largest file that is read, in bytes; None: `BYTE_LIMIT`.
        label_from: where labels are, see `labels.labelled_from`; None: the first folder, if it can be a class.

    Raises:
        DiffcleanError: `root` is missing or not a folder (raised at once), or holds no image (raised when it is
            listed).
    """

    def __init__(self, root: Path | str, byte_limit: int | None = None, label_from: str | None = None) -> None:
        self.root = Path(root)
        self.byte_limit = BYTE_LIMIT if byte_limit is None else byte_limit
        self.label_from = label_from
        self._found: _Found | None = None
        try:
            mode = self.root.stat().st_mode
        except OSError as error:
            raise DiffcleanError(f"{self.root}: {error.strerror}.", "Name the folder that holds the images.") from error
        if not stat.S_ISDIR(mode):
            raise DiffcleanError(f"{self.root} is not a folder.", "Name the folder that holds the images.")

    @property
    def where(self) -> str:
        """The path of the folder."""
        return str(self.root)

    def parts(self) -> Sequence[str]:
        """One part, the whole folder."""
        return ("",)

    def stream(self, part: str = "") -> Iterator[Item]:
        """Every image, sorted by the raw bytes of its key.

        The memory needed is that of the names in the largest folder.

        Raises:
            DiffcleanError: the folder cannot be listed, or holds no image.
            UsageError: `label_from` names a table that does not exist or cannot be parsed.
        """
        listing = Listing(self._below, self.byte_limit)
        found = _Found(listing.passed_over)
        for item in labelled_from(self.root, listing.walk(), self.label_from):
            found.layout.note(item.key)
            found.labels.add(item.label)
            yield item
        self._say(found.passed_over)
        if not found.labels:
            raise DiffcleanError(
                f"{self.root} holds no images ({found.passed_over.kinds.total()} other files).",
                f"Expected {NAMED}, here or in sub-folders.",
            )
        self._found = found

    def items(self) -> list[Item]:
        """Every image; the folder is listed at the first call."""
        return self._items

    @property
    def passed_over(self) -> PassedOver:
        """What the folder contains that is not read as an image."""
        return self._whole.passed_over

    @property
    def class_to_idx(self) -> dict[str, int]:
        """The number of each label; empty for a folder without sub-folders.

        A class without a single image that is read keeps its number.

        Raises:
            DiffcleanError: the first folders do not look like classes (`train`, `val`), and `label_from` is not given.
        """
        found = self._whole
        return found.layout.classes(self.root, self.label_from, found.labels, found.passed_over)

    def read(self, item: Item) -> bytes:
        """The encoded bytes of one image.

        Raises:
            ReadError: the item has a `problem`, or the file can no longer be read.
        """
        if item.problem is not None:
            raise ReadError(item.problem)
        try:
            return _plain_bytes(self._below.open(item.where), self.byte_limit)
        except OSError as error:
            raise ReadError(why_not_opened(error)) from error

    def name(self, item: Item) -> str:
        """The key itself."""
        return item.key

    def part_of(self, item: Item) -> str:
        """The whole folder is one part."""
        return ""

    def about(self, item: Item) -> Mapping[str, Any]:
        """The other columns of the table that has the labels, where there is one."""
        return self._table.about(item.key)

    @property
    def fields(self) -> pa.Schema:
        """Of that table; none where labels are not in one."""
        return self._table.schema

    def places(self) -> list[Path]:
        """The folder."""
        return [self.root]

    def describe(self) -> Description:
        """The real path of the folder, the limit, and where labels are."""
        options = {"byte_limit": self.byte_limit, "label_from": self.label_from}
        return Description("folder", os.path.realpath(self.root), options)

    @cached_property
    def _table(self) -> Table:
        return table_beside(self.root, self.label_from)

    @cached_property
    def _items(self) -> list[Item]:
        return list(self.stream())

    @property
    def _whole(self) -> _Found:
        """The result of the last complete listing."""
        if self._found is None:
            self.items()
        assert self._found is not None
        return self._found

    @cached_property
    def _below(self) -> Beneath:
        try:
            return Beneath(self.root)
        except OSError as error:
            raise DiffcleanError(f"{self.root} cannot be listed ({error.strerror}).") from error

    def _say(self, passed_over: PassedOver) -> None:
        for line in passed_over.lines():
            if (self.where, line) not in _SAID:  # a verb may look at a folder more than once
                _SAID.add((self.where, line))
                log.warning("%s: %s", self.root, line)


class FolderSink:
    """A folder that images are written to.

    Args:
        root: the folder; it is created if it is missing.
        owner: the name of the shard that writes, which marks its temporary files.
    """

    def __init__(self, root: Path | str, owner: str = "") -> None:
        self.root = Path(root)
        self.records: Records = FolderRecords(self.root)
        self._writer = Writer(self.root, owner)
        self._is_inside = lru_cache(maxsize=4096)(self._leads_inside)

    @property
    def where(self) -> str:
        """The path of the folder."""
        return str(self.root)

    def for_shard(self, shard: Shard) -> FolderSink:
        """The same folder for one shard."""
        return FolderSink(self.root, shard.name)

    def check_apart(self, source: Source) -> None:
        """See `check_all_separate`."""
        check_all_separate(source.places(), self.root)

    def check_keys(self, keys: Iterable[str], variants: int, extension: str, full_names: bool = False) -> None:
        """See `check_collisions`."""
        check_collisions(keys, variants=variants, extension=extension, full_names=full_names)

    def write(self, key: str, data: bytes) -> None:
        """Write one image and create its folders."""
        self._writer.write(key, data)

    def sync(self) -> None:
        """Make the names of all written files safe from a power cut."""
        self._writer.sync()

    def size(self, key: str) -> int | None:
        """The size of a plain file that can be reached without leaving the folder; None for anything else."""
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
        path = contained(self.root, key)
        try:
            # Do not follow links and do not wait for pipes: what was a plain file when written may be either by now.
            return _plain_bytes(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), None)
        except OSError as error:
            raise ReadError(f"cannot be read ({error.strerror})") from error

    def remove(self, *keys: str) -> None:
        """Remove the files; their folders remain."""
        for key in keys:
            path = contained(self.root, key)
            try:
                path.unlink(missing_ok=True)
            except NotADirectoryError:
                continue
            except OSError as error:
                raise write_error(error, path) from error

    def follow(self, made: Iterable[tuple[Item, list[Row]]], source: Source, class_to_idx: Mapping[str, int]) -> None:
        """Images lie as they should."""

    def finish(
        self,
        made: Callable[[], Iterable[tuple[Item, list[Row]]]],
        source: Source,
        class_to_idx: Mapping[str, int],
    ) -> None:
        """Images lie as they should; what travels along has no place in a folder, which is said."""
        say_left_out(source)

    def describe(self) -> Description:
        """The real path of the folder, and the shard that writes."""
        return Description("folder", os.path.realpath(self.root), {"owner": self._writer.owner})

    def _leads_inside(self, folder: Path) -> bool:
        """Whether a folder lies inside the root.

        Cached per folder: checking a million paths for links takes minutes.
        """
        root, real = Path(os.path.realpath(self.root)), Path(os.path.realpath(folder))
        return real == root or root in real.parents


def _plain_bytes(descriptor: int, byte_limit: int | None) -> bytes:
    """Read all of an open file and close it; raises ReadError if it is not a plain file or is too large."""
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        limit = found.st_size if byte_limit is None else byte_limit
        problem = file_problem(found, limit)
        data = b"" if problem else file.read(limit + 1)
    if problem or len(data) > limit:
        raise ReadError(problem or f"grew past the limit of {limit} bytes while it was read")
    return data
