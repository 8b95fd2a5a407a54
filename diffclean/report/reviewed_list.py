"""A list of suspects under review: it holds the decisions and writes them to the file in the background."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

from diffclean.data.atomic import write_whole
from diffclean.data.suspects import JudgedImage, SuspectList, read_list
from diffclean.errors import DiffcleanError

_PAUSE_S = 0.5
"""Between two writings of the list, in seconds: keys are pressed faster than a list of a million images is written."""


class ReviewedList:
    """A list under review; several threads may use it.

    Before the first change, the file as the detector wrote it is copied to `suspects.before-review.json` beside it. An
    image that the detector listed and that was kept in an earlier review is shown again.

    Args:
        path: the file of the list.

    Attributes:
        path: the file of the list.
        copy: the list as the detector wrote it. This file does not exist before the first change.
        problem: why the last decisions could not be written. Empty if nothing is wrong.

    Raises:
        DiffcleanError: the list cannot be read, or nothing is listed.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.copy = path, path.with_name(f"{path.stem}.before-review{path.suffix}")
        self.problem = ""
        self._found = read_list(path)
        self._bytes, self._stamp = path.read_bytes(), _stamp(path)
        self._images = list(self._found.images)
        before = _before(self.copy, self._found)
        self._has_copy = before is not None
        listed = self._found.keys | (before.keys if before else frozenset())
        shown = [number for number, image in enumerate(self._images) if image.key in listed]
        if not shown:
            raise DiffcleanError(f"{path} lists no suspects, so there is nothing to review.")
        self._shown = sorted(shown, key=lambda number: -self._images[number].probability)
        self._decided = self._written = 0
        self._lock, self._changed, self._closing = threading.Lock(), threading.Event(), threading.Event()
        self._writer = threading.Thread(target=self._write_now_and_then, daemon=True)
        self._writer.start()

    def rows(self) -> list[JudgedImage]:
        """The images that are shown with their current decisions, the most certain suspects first."""
        with self._lock:
            return [self._images[number] for number in self._shown]

    def key(self, row: int) -> str:
        """Return the key of an image that is shown; raises IndexError if there is no such row."""
        return self._images[self._shown[_checked(row)]].key

    def decide(self, row: int, suspect: bool) -> None:
        """Decide whether an image stays on the list; raises IndexError if there is no such row."""
        with self._lock:
            number = self._shown[_checked(row)]
            self._images[number] = replace(self._images[number], suspect=suspect)
            self._decided += 1
        self._changed.set()

    @property
    def is_written(self) -> bool:
        """Whether the file holds every decision."""
        return self._written == self._decided

    def close(self) -> None:
        """Write the decisions that are not written yet.

        Raises:
            DiffcleanError: the list cannot be written; the file keeps its last content.
        """
        self._closing.set()
        self._changed.set()
        self._writer.join()
        if self.problem:
            raise DiffcleanError(self.problem, "The last decisions are not in the list. Review it again.")

    def _write_now_and_then(self) -> None:
        while not self._closing.is_set():
            self._changed.wait()
            self._changed.clear()
            self._write()
            self._closing.wait(_PAUSE_S)
        self._write()

    def _write(self) -> None:
        """Write the list, unless somebody else has changed it meanwhile, so that their work is not lost."""
        with self._lock:
            now, decided = replace(self._found, images=list(self._images)), self._decided
        if decided == self._written:
            return
        try:
            if _stamp(self.path) != self._stamp:
                raise DiffcleanError(f"{self.path} was changed by somebody else during the review.")
            if not self._has_copy:
                write_whole(self.copy, self._bytes)
                self._has_copy = True
            now.write(self.path)
            self._stamp, self._written, self.problem = _stamp(self.path), decided, ""
        except (DiffcleanError, OSError) as error:
            self.problem = str(error)


def _before(copy: Path, now: SuspectList) -> SuspectList | None:
    """Return the list before the first review; None if there was no review, or the detector has rewritten it since."""
    if not copy.is_file():
        return None
    before = read_list(copy)
    same = [(image.key, repr(image.score)) for image in before.images]
    return before if same == [(image.key, repr(image.score)) for image in now.images] else None


def _checked(row: int) -> int:
    if row < 0:
        raise IndexError(row)
    return row


def _stamp(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return found.st_mtime_ns, found.st_size, found.st_ino
