"""Hints for errors inside the Docker image: a mounted folder of another user, or no mounted folder at all."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

MARK = "DIFFCLEAN_CONTAINER"
"""The environment variable that the Docker images set, to the kind of the image."""


def hint(error: BaseException) -> str:
    """Say how to change the `docker run` command so that an error goes away.

    Returns:
        The hint, or "" outside of the Docker image and for errors that another command would not mend.
    """
    if MARK not in os.environ:
        return ""
    if (refused := _refused(error)) is not None:
        return _owner_hint(Path(os.fsdecode(refused.filename)))
    if not any(Path.cwd().iterdir()):
        return f'No folder is mounted at {Path.cwd()}. Mount yours: docker run -v "$PWD:/workspace" ...'
    return ""


def _refused(error: BaseException | None) -> OSError | None:
    """The refused file access that caused an error, or None if there was none."""
    while error is not None:
        if isinstance(error, PermissionError) and error.errno == errno.EACCES and error.filename:
            return error
        error = error.__cause__ or error.__context__
    return None


def _owner_hint(path: Path) -> str:
    """Name the owner of the nearest accessible folder, and how to run the container as that user."""
    path = Path(os.path.abspath(path))  # noqa: PTH100 - `resolve` would need access to the folder
    for place in (path, *path.parents):
        with suppress(OSError):
            found = place.stat()
            break
    if found.st_uid == os.geteuid():
        return ""
    owner = f"{found.st_uid}:{found.st_gid}"
    return (
        f"This container runs as user {os.geteuid()}:{os.getegid()}, but {place} belongs to {owner}. "
        f"Run the container as the owner: docker run --user {owner} ..."
    )
