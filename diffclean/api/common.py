"""Code that the functions of this room have in common."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, overload

from diffclean.classifiers.classifier_file import ClassifierFile
from diffclean.data.address import Address, is_address, spelled
from diffclean.errors import UsageError
from diffclean.progress import NoProgress, Progress

AnyPath = str | os.PathLike[str]
"""A file or folder as text or as a path."""
Colour = tuple[float, float, float]
"""A number for each of R, G, B."""


@overload
def path_of(given: AnyPath) -> Path: ...
@overload
def path_of(given: AnyPath | None) -> Path | None: ...
def path_of(given: AnyPath | None) -> Path | None:
    """Convert to `Path`, which the other rooms expect; None stays None.

    Raises:
        UsageError: it is an address of a bucket, which only data sets may have (see `data_path_of`).
    """
    if given is not None and is_address(given):
        address = Address.parse(given)
        raise UsageError(
            f"{address} lies in a bucket, and a file or folder on this machine is needed here.",
            f"To bring a data set to this machine, type: diffclean convert {address} FOLDER. The tools of the store "
            "copy an output of `variate` with its records. docs/buckets.md says what may lie in a bucket.",
        )
    return None if given is None else Path(given)


@overload
def data_path_of(given: AnyPath) -> Path: ...
@overload
def data_path_of(given: AnyPath | None) -> Path | None: ...
def data_path_of(given: AnyPath | None) -> Path | None:
    """The place of a data set, which may be the address of a bucket: `open_source` understands its path."""
    return None if given is None else Path(spelled(given))


def with_paths(options: dict[str, Any], *names: str) -> dict[str, Any]:
    """`options`, in which the values of `names` are converted to paths, as by `path_of`."""
    return options | {name: path_of(options[name]) for name in names if name in options}


def classifier_file(path: AnyPath, options: dict[str, Any], role: str = "classifier") -> ClassifierFile:
    """The file of a classifier with the arguments that describe it, which are taken out of `options`.

    Args:
        path: the file.
        options: the arguments of a function of this room, among them `<role>_arch`, `<role>_size` and the like.
        role: "classifier" or "teacher".
    """
    own = [name for name in options if name.startswith(f"{role}_")]
    about = {name.removeprefix(f"{role}_"): options.pop(name) for name in own}
    return ClassifierFile(path_of(path), role=role, **with_paths(about, "classes"))


@contextmanager
def following(progress: bool | Progress) -> Iterator[Progress]:
    """The progress to report to while the block runs.

    Args:
        progress: True for a bar, if there is a terminal or a notebook to draw it in; False for none; or a `Progress`.
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
