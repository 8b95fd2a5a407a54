"""What the functions of the door share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import overload

from diffclean.progress import NoProgress, Progress

AnyPath = str | os.PathLike[str]
"""How a file or folder may be named."""


@overload
def path_of(given: AnyPath) -> Path: ...
@overload
def path_of(given: AnyPath | None) -> Path | None: ...
def path_of(given: AnyPath | None) -> Path | None:
    """A path, as the rooms below want it; None stays None."""
    return None if given is None else Path(given)


@contextmanager
def following(progress: bool | Progress) -> Iterator[Progress]:
    """Who is told of the progress of the work in the block.

    Args:
        progress: True: a bar, where there is a terminal or a notebook to draw it in; False: nobody; or a `Progress`.
    """
    shown = _bar() if progress is True else NoProgress() if progress is False else progress
    try:
        yield shown
    finally:
        shown.end()


def _bar() -> Progress:
    from diffclean.display.bar import Bar

    bar = Bar()
    return bar if bar.is_seen else NoProgress()
