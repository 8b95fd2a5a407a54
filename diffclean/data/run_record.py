"""`OUT/run.json`: what a run was asked to do, written before it starts; a folder holds one run.

What a run *is* follows from content: the engine, the settings, and (in the journal) each image's key and bytes. Where
the images lie and which classes they have is written down too, and may change from one resumed run to the next.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from diffclean.data.classes import checked_classes
from diffclean.data.records import FolderRecords, Records
from diffclean.errors import DiffcleanError

FORMAT_VERSION = 2
_READABLE = (1, FORMAT_VERSION)
RUN_FILE = "run.json"


@dataclass(frozen=True)
class RunRecord:
    """The record of a run.

    Attributes:
        identity: what decides the bytes of the output: resolved settings, the engine's fingerprint, the run seed.
            Plain JSON values; may be nested. A run resumes only with the same identity.
        class_to_idx: which number a label has.
        other: what else there is to know: workers, versions, the command line.
        source: where the images were when the run was last begun or resumed: a path without a link in it, or an
            address; `""` if unknown.
        source_from_here: the same relative to the output folder, so that both can be moved together; `""` if they are
            not on one disk.
        images: how many the source had then; 0 if unknown.
    """

    identity: Mapping[str, Any]
    class_to_idx: Mapping[str, int] = field(default_factory=dict)
    other: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""
    source_from_here: str = ""
    images: int = 0

    def as_json(self) -> str:
        """The text of `run.json`."""
        content = {
            "format_version": FORMAT_VERSION,
            "identity": dict(self.identity),
            "class_to_idx": dict(self.class_to_idx),
            "source": self.source,
            "source_from_here": self.source_from_here,
            "images": self.images,
            "other": dict(self.other),
        }
        return json.dumps(content, indent=2, default=str) + "\n"


def open_run(out: Path | Records, record: RunRecord) -> RunRecord | None:
    """Begin a run in `out` by writing `run.json`, or go on with the one that is there. Hold the lock first.

    Returns:
        The record of the run that is resumed, as it was found; None: the run begins now.

    Raises:
        DiffcleanError: `out` holds another run (every setting that differs is named) or files of something else.
    """
    records = FolderRecords(out) if isinstance(out, Path) else out
    found = _found(records)
    if found is not None:
        if different := differences(found, record):
            raise other_run(records, different)
        return found
    strangers = records.strangers()
    if RUN_FILE in strangers:  # another shard began since we looked
        return open_run(records, record)
    if strangers:
        raise DiffcleanError(
            f"{records.where} is not empty and holds no {RUN_FILE} (found {strangers[0]!a}"
            + (f" and {len(strangers) - 1} more)." if len(strangers) > 1 else ")."),
            "Its files would be mixed with the variations: name another output folder (`out`), or empty this one.",
        )
    # And may still have: its record is then the one to compare with.
    return None if records.write_new(RUN_FILE, record.as_json().encode()) else open_run(records, record)


def other_run(records: Records, different: list[str]) -> DiffcleanError:
    """What to say where a run is begun in the place of another; `different` as from `differences`."""
    return DiffcleanError(
        f"{records.where} holds a run with other settings:\n  " + "\n  ".join(_first(different)),
        "Name another output folder (`out`), or give the settings it was begun with.",
    )


def update_run(records: Records, found: RunRecord, now: RunRecord) -> None:
    """Write down where the images of a resumed run are now and which classes they have; the rest stays as it was.

    Raises:
        WriteError: it cannot be written.
    """
    updated = replace(
        found,
        class_to_idx=now.class_to_idx,
        source=now.source,
        source_from_here=now.source_from_here,
        images=now.images,
    )
    if updated != found:
        records.write(RUN_FILE, updated.as_json().encode())


def read_run(out: Path | Records) -> RunRecord:
    """The record of the run in `out`.

    Raises:
        DiffcleanError: none there, damaged, or written by a newer diffclean.
    """
    records = FolderRecords(out) if isinstance(out, Path) else out
    found = _found(records)
    if found is None:
        where = records.where
        raise DiffcleanError(f"{where}/{RUN_FILE} does not exist: {where} is not an output of diffclean.")
    return found


def source_of(out: Path) -> Path:
    """Where the originals of a run are: where they were, or else in the same place as seen from the output folder.

    Raises:
        DiffcleanError: as `read_run`.
    """
    record = read_run(out)
    beside = Path(os.path.normpath(out.resolve() / record.source_from_here))
    recorded = Path(record.source)
    return beside if record.source_from_here and not recorded.exists() and beside.exists() else recorded


def _found(records: Records) -> RunRecord | None:
    path = f"{records.where}/{RUN_FILE}"
    text = records.read(RUN_FILE)
    if text is None:
        return None
    try:
        content = json.loads(text)
        version = content["format_version"]
        if version not in _READABLE:
            raise DiffcleanError(
                f"{path} has format {version}; this diffclean reads {FORMAT_VERSION}.",
                "pip install --upgrade diffclean",
            )
        identity = dict(content["identity"])
        # Version 1 had the source among the settings, so that a folder that was moved was another run.
        source = identity.pop("source", "") or content.get("source", "")
        return RunRecord(
            identity,
            checked_classes(content["class_to_idx"]),
            dict(content["other"]),
            str(source),
            str(content.get("source_from_here", "")),
            int(content.get("images", 0)),
        )
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DiffcleanError(
            f"{path} is damaged ({type(error).__name__}: {error}).",
            "Restore it, or name another output folder: `out`.",
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


def _first(lines: list[str], shown: int = 20) -> list[str]:
    """A message that can be read."""
    return lines if len(lines) <= shown else [*lines[:shown], f"... and {len(lines) - shown} more"]


def _flat(record: RunRecord) -> dict[str, str]:
    """Every setting under a dotted name, with its value as JSON: what was written and read back compares equal."""
    content = json.loads(record.as_json())
    flat: dict[str, str] = {}

    def add(name: str, value: Any) -> None:
        if isinstance(value, dict) and (value or not name):
            for part, inner in value.items():
                add(f"{name}.{part}" if name else part, inner)
        else:
            flat[name] = json.dumps(value)

    add("", content["identity"])
    return flat
