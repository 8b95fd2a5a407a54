"""`OUT/run.json`: what a run was asked to do, written before it starts; a folder holds one run."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diffclean.data.atomic import read_plain, write_error, write_new
from diffclean.data.classes import checked_classes
from diffclean.errors import DiffcleanError

FORMAT_VERSION = 1
RUN_FILE = "run.json"


@dataclass(frozen=True)
class RunRecord:
    """The record of a run.

    Attributes:
        identity: what decides the bytes of the output: resolved settings, the engine's fingerprint, the run seed, the
            source. Plain JSON values; may be nested. A run resumes only with the same identity.
        class_to_idx: which number a label has; part of the identity.
        other: what may change when the run resumes: workers, versions, the command line.
    """

    identity: Mapping[str, Any]
    class_to_idx: Mapping[str, int] = field(default_factory=dict)
    other: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> str:
        """The text of `run.json`."""
        content = {
            "format_version": FORMAT_VERSION,
            "identity": dict(self.identity),
            "class_to_idx": dict(self.class_to_idx),
            "other": dict(self.other),
        }
        return json.dumps(content, indent=2, default=str) + "\n"


def open_run(out: Path, record: RunRecord) -> bool:
    """Begin a run in `out` by writing `run.json`, or go on with the one that is there. Hold the `Lock` first.

    Returns:
        Whether a run is resumed; its record stays as first written.

    Raises:
        DiffcleanError: `out` holds another run (every setting that differs is named) or files of something else.
    """
    if (out / RUN_FILE).exists():
        different = differences(read_run(out), record)
        if different:
            raise DiffcleanError(
                f"{out} holds a run with other settings:\n  " + "\n  ".join(_first(different)),
                "Choose another output folder with -o, or give the settings it was begun with.",
            )
        return True
    try:
        out.mkdir(parents=True, exist_ok=True)
        # Hidden files (our lock, .gitkeep) and what a fresh disk has are no content.
        strangers = sorted(path.name for path in out.iterdir() if path.name[0] != "." and path.name != "lost+found")
    except OSError as error:
        raise write_error(error, out) from error
    if RUN_FILE in strangers:  # another shard began since we looked
        return open_run(out, record)
    if strangers:
        raise DiffcleanError(
            f"{out} is not empty and holds no {RUN_FILE} (found {strangers[0]!a}"
            + (f" and {len(strangers) - 1} more)." if len(strangers) > 1 else ")."),
            "Its files would be mixed with the variations: choose another output folder with -o, or empty this one.",
        )
    # And may still have: its record is then the one to compare with.
    return False if write_new(out / RUN_FILE, record.as_json().encode()) else open_run(out, record)


def read_run(out: Path) -> RunRecord:
    """The record of the run in `out`.

    Raises:
        DiffcleanError: none there, damaged, or written by a newer diffclean.
    """
    path = out / RUN_FILE
    try:
        content = json.loads(read_plain(path))
        version = content["format_version"]
        if version != FORMAT_VERSION:
            raise DiffcleanError(
                f"{path} has format {version}; this diffclean reads {FORMAT_VERSION}.",
                "pip install --upgrade diffclean",
            )
        return RunRecord(dict(content["identity"]), checked_classes(content["class_to_idx"]), dict(content["other"]))
    except FileNotFoundError:
        raise DiffcleanError(f"{path} does not exist: {out} is not an output of diffclean.") from None
    except OSError as error:
        raise DiffcleanError(f"{path} cannot be read ({error.strerror}).") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DiffcleanError(
            f"{path} is damaged ({type(error).__name__}: {error}).",
            "Restore it, or choose another output folder with -o.",
        ) from error


def differences(found: RunRecord, expected: RunRecord) -> list[str]:
    """What keeps two records from being one run: a line for each setting, `name: X there, Y asked for`."""
    there, asked = _flat(found), _flat(expected)
    names = [*there, *(name for name in asked if name not in there)]
    return [
        f"{name}: {there.get(name, 'nothing')} there, {asked.get(name, 'nothing')} asked for"
        for name in names
        if there.get(name) != asked.get(name)
    ]


def check_separate(source: Path, out: Path) -> None:
    """Refuse an output inside the source, the source inside the output, and one for both; also through links.

    Raises:
        DiffcleanError: says which.
    """
    inner_out, inner_source = _is_inside(out, source), _is_inside(source, out)
    if inner_out and inner_source:
        problem = f"The output {out} is the source itself"
    elif inner_out:
        problem = f"The output {out} lies inside the source {source}: variations would be taken for originals"
    elif inner_source:
        problem = f"The source {source} lies inside the output {out}: originals would be taken for variations"
    else:
        return
    raise DiffcleanError(f"{problem}.", "Choose an output folder beside the source with -o.")


def _first(lines: list[str], shown: int = 20) -> list[str]:
    """Classes can differ by the thousand."""
    return lines if len(lines) <= shown else [*lines[:shown], f"... and {len(lines) - shown} more"]


def _is_inside(path: Path, folder: Path) -> bool:
    # By what the disk says, not by spelling: bind mounts and disks that ignore case give one folder many names.
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


def _flat(record: RunRecord) -> dict[str, str]:
    """Every setting under a dotted name, with its value as JSON: what was written and read back compares equal."""
    content = json.loads(record.as_json())
    flat: dict[str, str] = {}

    def add(name: str, value: Any) -> None:
        if isinstance(value, dict) and (value or name in ("", "class_to_idx")):
            for part, inner in value.items():
                add(f"{name}.{part}" if name else part, inner)
        else:
            flat[name] = json.dumps(value)

    add("", content["identity"])
    add("class_to_idx", content["class_to_idx"])
    return flat
