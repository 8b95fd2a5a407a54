"""Ensure that neither the source nor the output lies inside the other."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from diffclean.data.address import Address, is_address, spelled
from diffclean.errors import DiffcleanError


def check_separate(source: Path, out: Path) -> None:
    """Refuse an output inside the source, a source inside the output, and the same folder for both, also through links.

    Raises:
        DiffcleanError: says which of these is the case.
    """
    inner_out, inner_source = _is_inside(out, source), _is_inside(source, out)
    said_source, said_out = spelled(source), spelled(out)
    if inner_out and inner_source:
        problem = f"The output {said_out} is the source itself"
    elif inner_out:
        problem = f"The output {said_out} lies inside the source {said_source}: variations would be taken for originals"
    elif inner_source:
        problem = f"The source {said_source} lies inside the output {said_out}: originals would be taken for variations"
    else:
        return
    raise DiffcleanError(f"{problem}.", "Name an output folder beside the source: `out`.")


def check_all_separate(sources: Iterable[Path], out: Path) -> None:
    """The same for every file or folder that a source consists of; of files in one folder one is looked at."""
    seen = set()
    for path in sources:
        place = (path, "") if path.is_dir() else (path.parent, "a file in it")
        if place not in seen:
            seen.add(place)
            check_separate(path, out)


def _is_inside(path: Path, folder: Path) -> bool:
    if is_address(path) or is_address(folder):
        both = is_address(path) and is_address(folder)
        return both and Address.parse(folder).contains(Address.parse(path))
    # Compare folders on disk, not their spelling: bind mounts and disks that ignore case give one folder many names.
    try:
        wanted = folder.stat()
    except OSError:  # not made yet: nothing can be in it, but its path may still be the very same one
        return Path(os.path.realpath(folder)) == Path(os.path.realpath(path))
    real = Path(os.path.realpath(path))
    for parent in (real, *real.parents):
        try:
            if os.path.samestat(parent.stat(), wanted):
                return True
        except OSError:
            continue
    return False


def path_from(here: str, there: str) -> str:
    """The path of one place relative to another; `""` if there is none (another disk, or an address)."""
    if is_address(here) or is_address(there):
        return ""
    try:
        return os.path.relpath(there, here)
    except ValueError:  # two drives
        return ""
