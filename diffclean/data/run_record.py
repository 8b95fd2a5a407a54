"""`OUT/run.json`: what a run was asked to do, written before the run starts. A folder holds one run.

The identity of a run depends on its content: the engine, the settings, and (in the journal) the key and the bytes of
each image. The record also says where the images lie and which classes they have; these may change from one resumed run
to the next.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from diffclean.data.classes import checked_classes
from diffclean.data.json_file import json_of
from diffclean.data.places import place_of, records_at
from diffclean.data.records import Records
from diffclean.data.registry import is_there
from diffclean.errors import DiffcleanError

FORMAT_VERSION = 2
_READABLE = (1, FORMAT_VERSION)
RUN_FILE = "run.json"


class OtherRunError(DiffcleanError):
    """The folder holds a run with other settings or of another engine."""


@dataclass(frozen=True)
class RunRecord:
    """The record of a run.

    Attributes:
        identity: everything that decides the bytes of the output: the resolved settings, the fingerprint of the engine
            and the run seed, as plain JSON values that may be nested. A run can be resumed only with the same identity.
        class_to_idx: the number of each label.
        other: further information: workers, versions, the command line.
        source: where the images were when the run was last started or resumed: a path without links or an address; `""`
            if unknown.
        source_from_here: the same path relative to the output folder, so that both can be moved together; `""` if they
            are not on the same disk.
        images: the number of images in the source at that time; 0 if unknown.
        format_version: the version of the record as it was found.
    """

    identity: Mapping[str, Any]
    class_to_idx: Mapping[str, int] = field(default_factory=dict)
    other: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""
    source_from_here: str = ""
    images: int = 0
    format_version: int = field(default=FORMAT_VERSION, compare=False)

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
    """Start a run in `out` by writing `run.json`, or resume the run that is there. Hold the lock first.

    Returns:
        The record of the run that is resumed, as it was found; None if the run starts now.

    Raises:
        OtherRunError: `out` holds another run; the message names every setting that differs.
        DiffcleanError: `out` holds other files.
    """
    records = records_at(place_of(out)) if isinstance(out, Path) else out
    found = check_run(records, record)
    # Another shard may also begin now; its record is then the one to compare with.
    if found is None and not records.write_new(RUN_FILE, record.as_json().encode()):
        return open_run(records, record)
    return found


def check_run(records: Records, record: RunRecord) -> RunRecord | None:
    """Return the record of the run that `open_run` would resume, or None if it would start one. Nothing is written.

    Raises:
        OtherRunError, DiffcleanError: as for `open_run`.
    """
    found = _found(records)
    if found is not None:
        if different := differences(found, record):
            raise other_run(records, different, found)
        return found
    strangers = records.strangers()
    if RUN_FILE in strangers:  # another shard began since we looked
        return check_run(records, record)
    if strangers:
        raise DiffcleanError(
            f"{records.where} is not empty and holds no {RUN_FILE} (found {strangers[0]!a}"
            + (f" and {len(strangers) - 1} more)." if len(strangers) > 1 else ")."),
            "Its files would be mixed with the variations. Name another output folder (`out`), or empty this one.",
        )
    return None


def other_run(records: Records, different: list[str], found: RunRecord | None = None) -> OtherRunError:
    """The error for a run that is started in the folder of another run.

    Args:
        records: the records of the folder.
        different: what differs, from `differences`.
        found: the record in the folder. If an earlier version wrote it, the message says what can be done with it.
    """
    message = f"{records.where} holds a run with other settings:\n  " + "\n  ".join(_first(different))
    if found is not None and found.format_version < FORMAT_VERSION:
        return OtherRunError(
            f"{message}\nAn earlier version of diffclean wrote it (run.json has format {found.format_version}), which "
            "did not know all settings of this one.",
            "Its variations can be used as they are: `diffclean distill`, `evaluate` and `report` read them. To make "
            "others, name another output folder (`out`).",
        )
    return OtherRunError(
        message, "Name another output folder (`out`), or give the settings with which the run was started."
    )


def update_run(records: Records, found: RunRecord, now: RunRecord) -> None:
    """Record where the images of a resumed run are now and which classes they have; the rest is unchanged.

    Raises:
        WriteError: the record cannot be written.
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
        DiffcleanError: the record is missing, damaged, or written by a newer diffclean.
    """
    records = records_at(place_of(out)) if isinstance(out, Path) else out
    found = _found(records)
    if found is None:
        where = records.where
        raise DiffcleanError(
            f"{where}/{RUN_FILE} does not exist, so {where} is not an output of diffclean.",
            "Name an output folder of `diffclean variate`.",
        )
    return found


def source_of(out: Path) -> Path:
    """Where the originals of a run are.

    This is the recorded path, or, if that does not exist, the same place relative to the output folder.

    Raises:
        DiffcleanError: as for `read_run`.
    """
    record = read_run(out)
    if not record.source_from_here or is_there(record.source):
        return Path(record.source)
    beside = Path(os.path.normpath(out.resolve() / record.source_from_here))
    return beside if is_there(beside) else Path(record.source)


def _found(records: Records) -> RunRecord | None:
    path = f"{records.where}/{RUN_FILE}"
    text = records.read(RUN_FILE)
    if text is None:
        return None
    try:
        content = json_of(text, infinities=True, file_names=True)
        version = content["format_version"]
        if version not in _READABLE:
            raise DiffcleanError(
                f"{path} has format {version}; this diffclean reads {FORMAT_VERSION}.",
                "pip install --upgrade diffclean",
            )
        identity = dict(content["identity"])
        # Version 1 had the source among the settings, so that moving a folder made it another run.
        source = identity.pop("source", "") or content.get("source", "")
        identity.pop("pixel_limit", None)  # earlier versions named it, but it determines no bytes
        from_here = content.get("source_from_here", "")
        if not all(isinstance(each, str) and "\0" not in each for each in (source, from_here)):
            raise ValueError("its source is not a path")
        return RunRecord(
            identity,
            checked_classes(content["class_to_idx"]),
            dict(content["other"]),
            source,
            from_here,
            int(content.get("images", 0)),
            version,
        )
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise DiffcleanError(
            f"{path} is damaged ({type(error).__name__}: {error}).",
            "Restore it, or name another output folder: `out`.",
        ) from error


def differences(found: RunRecord, expected: RunRecord) -> list[str]:
    """The settings in which two records differ, one line each: `name: X there, Y asked for`."""
    there, asked = _flat(found), _flat(expected)
    names = [*there, *(name for name in asked if name not in there)]
    return [
        f"{name}: {there.get(name, 'nothing')} there, {asked.get(name, 'nothing')} asked for"
        for name in names
        if there.get(name) != asked.get(name)
    ]


def _first(lines: list[str], shown: int = 20) -> list[str]:
    """The first lines, so that the message stays readable."""
    return lines if len(lines) <= shown else [*lines[:shown], f"... and {len(lines) - shown} more"]


def _flat(record: RunRecord) -> dict[str, str]:
    """Every setting under a dotted name with its value as JSON.

    JSON values compare equal after they were written and read.
    """
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
