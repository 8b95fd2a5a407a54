"""Code that the functions of this room have in common."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import overload

from diffclean.progress import NoProgress, Progress

AnyPath = str | os.PathLike[str]
"""A file or folder as text or as a path."""


@overload
def path_of(given: AnyPath) -> Path: ...
@overload
def path_of(given: AnyPath | None) -> Path | None: ...
def path_of(given: AnyPath | None) -> Path | None:
    """Convert to `Path`, which the other rooms expect; None stays None."""
    return None if given is None else Path(given)


@contextmanager
def following(progress: bool | Progress) -> Iterator[Progress]:
    """The progress to report to while the block runs.

    Args:
        progress: True for a bar, if there is a terminal or a notebook to draw it in; False for none; or a `Progress`.
    """
    told = _bar() if progress is True else NoProgress() if progress is False else progress
    try:
        yield told
    finally:
        told.end()


def _bar() -> Progress:
    from diffclean.display.bar import Bar

    bar = Bar()
    return bar if bar.is_seen else NoProgress()
