"""Open files below a folder so that no link can lead out of it, even if files are changed during a run."""

from __future__ import annotations

import errno
import os
import weakref
from pathlib import Path

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Do not follow links and do not wait for pipes: what was a plain file when it was listed may be either by now.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Beneath:
    """A folder that is held open. Files below it are opened folder by folder and never through a link.

    Args:
        root: the folder; links on the way to it are followed.

    Raises:
        OSError: the folder cannot be opened.
    """

    def __init__(self, root: Path | str) -> None:
        self.path = os.path.realpath(root)
        self._descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._descriptor)

    def open(self, path: str) -> int:
        """Open a file for reading and return its descriptor.

        Args:
            path: the absolute path of the file below `self.path`, without links.

        Raises:
            OSError: the file cannot be opened, or a link has taken the place of a folder or of the file.
            ValueError: the path is not below `self.path`.
        """
        start = self.path.rstrip("/") + "/"
        if not path.startswith(start):
            raise ValueError(f"{path!a} is not below {self.path!a}")
        *folders, name = path[len(start) :].split("/")
        at = self._descriptor
        try:
            for folder in folders:
                deeper = os.open(folder, _FOLDER, dir_fd=at)
                if at != self._descriptor:
                    os.close(at)
                at = deeper
            return os.open(name, _FILE, dir_fd=at)
        finally:
            if at != self._descriptor:
                os.close(at)


def why_not_opened(error: OSError) -> str:
    """The reason why a file could not be opened, for the user."""
    if error.errno in (errno.ELOOP, errno.EMLINK):  # what O_NOFOLLOW gives, on Linux and on BSD
        return "cannot be read (a link took its place after the folder was listed)"
    return f"cannot be read ({error.strerror})"
