"""What lies in a folder of images, in order and without a list of it all."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from diffclean.data.item import Item
from diffclean.data.keys import key_from_path, label_of
from diffclean.errors import DiffcleanError

EXTENSIONS = frozenset({"jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff", "gif", "ppm", "pgm", "pbm"})
_EXTENSIONS = frozenset(extension.encode() for extension in EXTENSIONS)


@dataclass(frozen=True, slots=True)
class _Folder:
    """A folder to go into.

    Attributes:
        path: where it really is.
        relative: its path in keys, with a slash at the end; empty for the root.
        linked: whether a link was followed on the way.
    """

    path: bytes
    relative: bytes
    linked: bool


class Listing:
    """One walk over a folder: an item for each image, sorted by the raw bytes of its key.

    Memory is that of the names in one folder and in those above it.

    Args:
        root: a real path (no link in it).
        byte_limit: larger files become items with a problem.

    Attributes:
        others: files that were passed over, so far.
    """

    def __init__(self, root: str, byte_limit: int) -> None:
        self.root = os.fsencode(root)
        self.byte_limit = byte_limit
        self.others = 0

    def walk(self) -> Iterator[Item]:
        """Every image.

        Raises:
            DiffcleanError: the root itself cannot be listed.
        """
        # A list of what is left to do, not recursion: folders can be nested deeper than Python's stack.
        todo = [self._entries(_Folder(self.root, b"", False))]
        while todo:
            found = next(todo[-1], None)
            if found is None:
                todo.pop()
            elif isinstance(found, Item):
                yield found
            else:
                todo.append(self._entries(found))

    def _entries(self, folder: _Folder) -> Iterator[Item | _Folder]:
        """What one folder holds. A sub-folder's name is sorted with its slash, as it stands in keys."""
        names: list[bytes] = []
        special: dict[bytes, Item | _Folder] = {}
        try:
            with os.scandir(folder.path) as entries:
                for entry in entries:
                    if not entry.name.startswith(b"."):
                        self._enter(entry, folder, names, special)
        except OSError as error:
            if not folder.relative:
                shown = os.fsdecode(self.root)
                raise DiffcleanError(f"{shown} cannot be listed ({error.strerror}).") from error
            yield _item(folder.relative[:-1], folder.path, f"folder cannot be listed ({error.strerror})")
            return
        names.sort()
        for name in names:
            if name in special:
                yield special.pop(name)
            elif name.endswith(b"/"):
                yield _Folder(folder.path + b"/" + name[:-1], folder.relative + name, folder.linked)
            else:
                yield self._file(folder.path + b"/" + name, folder.relative + name)

    def _enter(
        self, entry: os.DirEntry[bytes], folder: _Folder, names: list[bytes], special: dict[bytes, Item | _Folder]
    ) -> None:
        """Note one entry's name; and in `special` what is to be said of it, where the name does not say it."""
        image = b"." in entry.name and entry.name.rpartition(b".")[2].lower() in _EXTENSIONS
        if entry.is_symlink():
            found = self._link(entry.path, folder.relative + entry.name, folder.linked, image)
            if found is None:
                self.others += 1
                return
            name = entry.name + b"/" if isinstance(found, _Folder) else entry.name
            names.append(name)
            special[name] = found
        elif entry.is_dir(follow_symlinks=False):
            names.append(entry.name + b"/")
        elif image:
            names.append(entry.name)
        else:
            self.others += 1

    def _link(self, path: bytes, relative: bytes, linked: bool, image: bool) -> Item | _Folder | None:
        """What a symbolic link stands for; None: for a file that is no image."""
        try:
            target = os.path.realpath(path, strict=True)
            is_folder = stat.S_ISDIR(os.stat(target).st_mode)  # noqa: PTH116 - bytes, which pathlib does not take
        except OSError as error:
            # A broken link with another extension is some other file; without one it may have been a whole class.
            if image or b"." not in os.path.basename(path)[1:]:  # noqa: PTH119
                return _item(relative, path, f"broken link or link loop ({error.strerror})")
            return None
        if not is_folder and not image:
            return None
        if not _inside(target, self.root):
            return _item(relative, path, f"link leads out of the source, to {os.fsdecode(target)!a}")
        if not is_folder:
            return self._file(target, relative)
        if _inside(os.path.dirname(path), target):  # noqa: PTH120
            return _item(relative, path, "link loop: leads to a folder that holds it")
        if linked:
            return _item(relative, path, "link to a folder inside a linked folder: links are followed once")
        return _Folder(target, relative + b"/", True)

    def _file(self, path: bytes, relative: bytes) -> Item:
        try:
            found = os.lstat(path)
        except OSError as error:
            return _item(relative, path, f"cannot be read ({error.strerror})")
        problem = file_problem(found, self.byte_limit)
        return _item(relative, path, problem, "" if problem else f"{found.st_size}:{found.st_mtime_ns}")


def file_problem(found: os.stat_result, byte_limit: int) -> str | None:
    """Why a file is not read; None: it is a plain file within the limit."""
    if not stat.S_ISREG(found.st_mode):
        return "not a plain file"
    if found.st_size > byte_limit:
        return f"file of {found.st_size} bytes; the limit is {byte_limit}"
    return None


def _item(relative: bytes, path: bytes, problem: str | None, stamp: str = "") -> Item:
    key = key_from_path(relative)
    return Item(key, os.fsdecode(path), label_of(key), problem, stamp)


def _inside(path: bytes, folder: bytes) -> bool:
    return path == folder or path.startswith(folder.rstrip(b"/") + b"/")
