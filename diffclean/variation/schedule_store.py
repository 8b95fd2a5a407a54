"""Schedules that were worked out before, as files in the cache.

Working out a schedule imports diffusers, which takes seconds and more than a hundred megabytes in each process. The
numbers depend on nothing but the settings and the versions of the libraries, so they are worked out once and kept.
"""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from diffclean.data.json_file import read_json
from diffclean.environment import cache_dir, package_version
from diffclean.errors import DiffcleanError

log = logging.getLogger(__name__)

_FORMAT = 1
_LARGEST_BYTES = 2**20
"""The largest file that is kept. A schedule of n steps has about n^2 / 2 numbers, so that of hundreds is not kept."""


def file_of(name: str, config: Mapping[str, Any], steps: int, start: float) -> Path:
    """The file of a schedule; its name is a hash of everything that determines the numbers.

    Args:
        name: as for `schedule.schedule_of`.
        config: as for `schedule.schedule_of`.
        steps: as for `schedule.schedule_of`.
        start: as for `schedule.schedule_of`.
    """
    versions = {library: package_version(library) for library in ("diffusers", "torch", "numpy", "scipy")}
    identity = [_FORMAT, name, dict(config), steps, start, versions]
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode()).hexdigest()
    return cache_dir() / "schedules" / f"{name}-{digest[:16]}.json"


def kept(place: Path) -> dict[str, Any] | None:
    """The fields of the schedule in a file; None if there is no such file, or if it is not as it was written."""
    try:
        content = read_json(place, _LARGEST_BYTES)
        fields: dict[str, Any] = content["schedule"]
        if content["sha256"] == _digest(fields):
            return fields
        log.warning("%s was changed, and is worked out again.", place)
    except (DiffcleanError, KeyError, TypeError):
        pass
    return None


def keep(place: Path, fields: Mapping[str, Any]) -> None:
    """Write the fields of a schedule, unless there are too many, or the cache cannot be written to."""
    text = json.dumps({"schedule": fields, "sha256": _digest(fields)})
    if len(text) < _LARGEST_BYTES:
        with suppress(OSError):
            place.parent.mkdir(parents=True, exist_ok=True)
            _write(place, text)


def _write(place: Path, text: str) -> None:
    """Write a file that appears as a whole; unlike `write_whole`, this does not wait for the disk.

    A file that a power cut damages is worked out again.
    """
    file = tempfile.NamedTemporaryFile("w", dir=place.parent, suffix=".part", delete=False)  # noqa: SIM115 - renamed
    try:
        with file:
            file.write(text)
        Path(file.name).replace(place)
    except BaseException:
        Path(file.name).unlink(missing_ok=True)
        raise


def _digest(fields: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
