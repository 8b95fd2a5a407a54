"""What people have to know inside the image: a mounted folder belongs to somebody, or nothing is mounted at all."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

MARK = "DIFFCLEAN_CONTAINER"
"""Set in the image to its kind."""


def hint(error: BaseException) -> str:
    """What to type after `docker run` about an error; "" outside of the image, and where it would not help."""
    if MARK not in os.environ:
        return ""
    if (refused := _refused(error)) is not None:
        return _owner_hint(Path(os.fsdecode(refused.filename)))
    if not any(Path.cwd().iterdir()):
        return f'Nothing is mounted at {Path.cwd()}: docker run -v "$PWD:/workspace" ...'
    return ""


def _refused(error: BaseException | None) -> OSError | None:
    """The denied access that is at the bottom of an error."""
    while error is not None:
        if isinstance(error, PermissionError) and error.errno == errno.EACCES and error.filename:
            return error
        error = error.__cause__ or error.__context__
    return None


def _owner_hint(path: Path) -> str:
    """Whose the nearest folder that can be seen is, and how to be that user."""
    path = Path(os.path.abspath(path))  # noqa: PTH100 - `resolve` may not look into it either
    for place in (path, *path.parents):
        with suppress(OSError):
            found = place.stat()
            break
    if found.st_uid == os.geteuid():
        return ""
    owner = f"{found.st_uid}:{found.st_gid}"
    return (
        f"This container works as user {os.geteuid()}:{os.getegid()}, and {place} belongs to {owner}. "
        f"Run it as the owner: docker run --user {owner} ..."
    )
