"""Walk a folder once, in order: the images, what is passed over, and what is known to be unreadable."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from diffclean.data.beneath import Beneath, why_not_opened
from diffclean.data.formats import FORMATS, HEAD_BYTES, HEIF, RAW_EXTENSIONS, heif_is_there, is_taken, sniffed
from diffclean.data.item import Item
from diffclean.data.keys import key_from_path, label_of
from diffclean.data.passed_over import PassedOver, is_machine_made, is_of_the_system, is_own
from diffclean.errors import DiffcleanError


@dataclass(frozen=True, slots=True)
class _Folder:
    """A folder that the walk will enter.

    Attributes:
        path: its real path.
        relative: its path in keys, with a slash at the end; empty for the root.
        linked: whether a link was followed on the way.
    """

    path: str
    relative: str
    linked: bool


class Listing:
    """One walk over a folder, with an item for each image, sorted by the raw bytes of its key.

    The memory needed is that of the names in one folder and in the folders above it.

    Args:
        below: the folder.
        byte_limit: files larger than this many bytes become items with a problem.

    Attributes:
        passed_over: everything else that was found; complete when the walk has ended.
    """

    def __init__(self, below: Beneath, byte_limit: int) -> None:
        self.below = below
        self.byte_limit = byte_limit
        self.passed_over = PassedOver()

    def walk(self) -> Iterator[Item]:
        """Every image.

        Raises:
            DiffcleanError: the folder itself cannot be listed.
        """
        # A list of what is left to do, not recursion: folders can be nested deeper than Python's stack.
        todo = [self._entries(_Folder(self.below.path, "", False))]
        while todo:
            found = next(todo[-1], None)
            if found is None:
                todo.pop()
            elif isinstance(found, Item):
                self.passed_over.image_in(found.key.rpartition("/")[0])
                yield found
            else:
                todo.append(self._entries(found))
        self.passed_over.end()

    def _entries(self, folder: _Folder) -> Iterator[Item | _Folder]:
        """The content of one folder. The name of a sub-folder is sorted with its slash, as it appears in keys."""
        names: list[str] = []
        special: dict[str, Item | _Folder] = {}
        try:
            with os.scandir(folder.path) as entries:
                for entry in entries:
                    self._enter(entry, folder, names, special)
        except OSError as error:
            if not folder.relative:
                raise DiffcleanError(f"{folder.path} cannot be listed ({error.strerror}).") from error
            yield _item(folder.relative[:-1], folder.path, f"folder cannot be listed ({error.strerror})")
            return
        names.sort(key=os.fsencode)
        for name in names:
            path = os.path.join(folder.path, name)  # noqa: PTH118 - hot
            if name in special:
                yield special.pop(name)
            elif name.endswith("/"):
                yield _Folder(path[:-1], folder.relative + name, folder.linked)
            elif (item := self._file(path, folder.relative + name)) is not None:
                yield item

    def _enter(
        self, entry: os.DirEntry[str], folder: _Folder, names: list[str], special: dict[str, Item | _Folder]
    ) -> None:
        """Record the name of an entry, and in `special` what it is if its name does not show it."""
        if entry.name.startswith("."):
            self.passed_over.hidden += not is_own(entry.name)
        elif entry.is_symlink():
            found = self._link(entry.path, folder.relative + entry.name, folder.linked)
            if found is not None:
                name = entry.name + "/" if isinstance(found, _Folder) else entry.name
                names.append(name)
                special[name] = found
        elif not entry.is_dir(follow_symlinks=False):
            names.append(entry.name)
        elif is_machine_made(entry.name):
            self.passed_over.machine_made.append(key_from_path(folder.relative + entry.name))
        else:
            names.append(entry.name + "/")

    def _link(self, path: str, relative: str, linked: bool) -> Item | _Folder | None:
        """What a symbolic link stands for, or None for a file that is not an image."""
        try:
            target = os.path.realpath(path, strict=True)
            is_folder = Path(target).is_dir()
        except OSError as error:
            # A broken link with another extension is some other file; without one it may have been a whole class.
            if is_taken(_extension(path)) or not Path(path).suffix:
                return _item(relative, path, f"broken link or link loop ({error.strerror})")
            self.passed_over.add(relative, _extension(path))
            return None
        inside = _inside(target, self.below.path)
        if not is_folder and inside:
            return self._file(target, relative)
        if not is_folder and not is_taken(_extension(path)):
            self.passed_over.add(relative, _extension(path))  # its content is not read, as it lies outside
            return None
        if not inside:
            hint = "to take what it leads to, copy the source with cp -rL"
            return _item(relative, path, f"link leads out of the source, to {target!a} ({hint})")
        if _inside(os.path.dirname(path), target):  # noqa: PTH120 - a str, as the rest here
            return _item(relative, path, "link loop: leads to a folder that contains it")
        if linked:
            return _item(relative, path, "link to a folder inside a linked folder: links are followed once")
        return _Folder(target, relative + "/", True)

    def _file(self, path: str, relative: str) -> Item | None:
        """The item of a file, or None if it is not an image."""
        if not is_taken(_extension(relative)) and not self._is_image(path, relative):
            return None
        try:
            found = os.lstat(path)
        except OSError as error:
            return _item(relative, path, why_not_opened(error))
        problem = file_problem(found, self.byte_limit)
        return _item(relative, path, problem, "" if problem else f"{found.st_size}:{found.st_mtime_ns}")

    def _is_image(self, path: str, relative: str) -> bool:
        """Whether a file whose extension is not that of an image has the content of one. Other files are recorded."""
        if "/" not in relative and is_own(relative):
            return False
        if is_of_the_system(relative.rpartition("/")[2]):
            self.passed_over.hidden += 1
            return False
        format = None if _extension(relative) in RAW_EXTENSIONS else self._looked_at(path)
        if format in FORMATS or (format == HEIF and heif_is_there()):
            return True
        self.passed_over.add(relative, "heic" if format == HEIF else _extension(relative))
        return False

    def _looked_at(self, path: str) -> str | None:
        """The format of a file by its first bytes; None if it is not recognised or cannot be read."""
        try:
            descriptor = self.below.open(path)
            try:
                plain = stat.S_ISREG(os.fstat(descriptor).st_mode)
                return sniffed(os.read(descriptor, HEAD_BYTES)) if plain else None
            finally:
                os.close(descriptor)
        except OSError:
            return None


def file_problem(found: os.stat_result, byte_limit: int) -> str | None:
    """Why a file is not read, or None if it is a plain file within the limit."""
    if not stat.S_ISREG(found.st_mode):
        return "not a plain file"
    if found.st_size > byte_limit:
        return f"file of {found.st_size} bytes; the limit is {byte_limit}"
    return None


def _item(relative: str, path: str, problem: str | None, stamp: str = "") -> Item:
    key = key_from_path(relative)
    return Item(key, path, label_of(key), problem, stamp)


def _extension(path: str) -> str:
    """The extension in lower case, without the dot; `""` if there is none."""
    name = path.rpartition("/")[2]
    return name.rpartition(".")[2].lower() if "." in name else ""


def _inside(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")
