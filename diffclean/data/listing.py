"""One walk over a folder of images: what is taken, what is passed over, and what is known to be unreadable."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from diffclean.data.beneath import Beneath, why_not_opened
from diffclean.data.formats import FORMATS, HEAD_BYTES, HEIF, heif_is_there, is_taken, sniffed
from diffclean.data.item import Item
from diffclean.data.keys import key_from_path, label_of
from diffclean.data.passed_over import PassedOver, is_machine_made, is_of_the_system, is_own
from diffclean.errors import DiffcleanError


@dataclass
class Listing:
    """One walk over a folder.

    Attributes:
        below: the folder.
        byte_limit: the largest file that is taken.
        items: images, in no order.
        passed_over: all other things.
    """

    below: Beneath
    byte_limit: int
    items: list[Item] = field(default_factory=list)
    passed_over: PassedOver = field(default_factory=PassedOver)
    _todo: list[tuple[str, str, bool]] = field(default_factory=list)  # real folder, its path in keys, through a link?

    def walk(self) -> None:
        """Fill `items` and `passed_over`.

        Raises:
            DiffcleanError: the folder itself cannot be listed.
        """
        # A list of what is left to do, not recursion: folders can be nested deeper than Python's stack.
        self._todo = [(self.below.path, "", False)]
        while self._todo:
            folder, relative, linked = self._todo.pop()
            try:
                with os.scandir(folder) as entries:
                    for entry in entries:
                        self._entry(entry, os.path.join(relative, entry.name), linked)  # noqa: PTH118 - hot
            except OSError as error:
                if not relative:
                    raise DiffcleanError(f"{self.below.path} cannot be listed ({error.strerror}).") from error
                self._add(relative, folder, f"folder cannot be listed ({error.strerror})")
        self.passed_over.see({item.key for item in self.items})

    def _entry(self, entry: os.DirEntry[str], relative: str, linked: bool) -> None:
        if entry.name.startswith("."):
            self.passed_over.hidden += not is_own(entry.name)
        elif entry.is_symlink():
            self._link(entry.path, relative, linked)
        elif not entry.is_dir(follow_symlinks=False):
            self._file(entry.path, relative)
        elif is_machine_made(entry.name):
            self.passed_over.machine_made.append(key_from_path(relative))
        else:
            self._todo.append((entry.path, relative, linked))

    def _link(self, path: str, relative: str, linked: bool) -> None:
        try:
            target = os.path.realpath(path, strict=True)
            is_folder = Path(target).is_dir()
        except OSError as error:
            # A broken link with another extension is some other file; without one it may have been a whole class.
            if is_taken(_extension(path)) or not Path(path).suffix:
                self._add(relative, path, f"broken link or link loop ({error.strerror})")
            else:
                self.passed_over.add(relative, _extension(path))
            return
        inside = _inside(target, self.below.path)
        if not is_folder and inside:
            self._file(target, relative)
        elif not is_folder and not is_taken(_extension(path)):
            self.passed_over.add(relative, _extension(path))  # not even looked at: it lies outside
        elif not inside:
            hint = "to take what it leads to, copy the source with cp -rL"
            self._add(relative, path, f"link leads out of the source, to {target!a} ({hint})")
        elif _inside(os.path.dirname(path), target):  # noqa: PTH120 - a str, as the rest here
            self._add(relative, path, "link loop: leads to a folder that holds it")
        elif linked:
            self._add(relative, path, "link to a folder inside a linked folder: links are followed once")
        else:
            self._todo.append((target, relative, True))

    def _file(self, path: str, relative: str) -> None:
        extension = _extension(relative)
        if not is_taken(extension):
            if "/" not in relative and is_own(relative):
                return
            if is_of_the_system(os.path.basename(relative)):  # noqa: PTH119 - hot
                self.passed_over.hidden += 1
                return
            if (found := self._looked_at(path)) not in FORMATS and not (found == HEIF and heif_is_there()):
                self.passed_over.add(relative, "heic" if found == HEIF else extension)
                return
        try:
            problem = file_problem(os.lstat(path), self.byte_limit)
        except OSError as error:
            problem = why_not_opened(error)
        self._add(relative, path, problem)

    def _looked_at(self, path: str) -> str | None:
        """What a file's first bytes say; None also where they cannot be had."""
        try:
            descriptor = self.below.open(path)
            try:
                plain = stat.S_ISREG(os.fstat(descriptor).st_mode)
                return sniffed(os.read(descriptor, HEAD_BYTES)) if plain else None
            finally:
                os.close(descriptor)
        except OSError:
            return None

    def _add(self, relative: str, path: str, problem: str | None) -> None:
        key = key_from_path(relative)
        self.items.append(Item(key, Path(path), label_of(key), problem))


def file_problem(found: os.stat_result, byte_limit: int) -> str | None:
    """Why a file is not read; None: it may be."""
    if not stat.S_ISREG(found.st_mode):
        return "not a plain file"
    if found.st_size > byte_limit:
        return f"file of {found.st_size} bytes; the limit is {byte_limit}"
    return None


def _extension(path: str) -> str:
    """Lower case, without the dot; `""` where there is none."""
    name = path.rpartition("/")[2]
    return name.rpartition(".")[2].lower() if "." in name else ""


def _inside(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")
