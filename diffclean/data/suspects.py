"""The list of suspects: which images a detector thinks are poisoned, and why.

`diffclean suspects` writes it as JSON. A list may also come from somewhere else: `read_suspects` takes a JSON array of
keys, or a CSV file with a column `key`, as well.
"""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from diffclean.data.atomic import make_folders, write_whole
from diffclean.errors import DiffcleanError

SUSPECTS_FILE = "suspects.json"
FORMAT = "diffclean-suspects"
FORMAT_VERSION = 2
_READABLE = (1, FORMAT_VERSION)
_KEPT = ("0", "false", "no", "")
"""What the column `suspect` of a CSV file says of an image that is to be kept."""


@dataclass(frozen=True)
class JudgedImage:
    """One image.

    Attributes:
        key: of the image in its data set.
        label: the class that the data set says it shows.
        score: how suspect it is; higher is more suspect, comparable within one list only.
        probability: in [0, 1], that it is poisoned.
        suspect: whether it should be left out.
    """

    key: str
    label: str
    score: float
    probability: float
    suspect: bool


@dataclass(frozen=True)
class JudgedClass:
    """What a detector found among the images of one class.

    Attributes:
        name: the class.
        images: how many images were judged in it.
        suspects: how many of them are listed.
        separation: the detector's measure of how clearly the listed images differ from the others; 0 for not at all.
        limit: the separation from which on they are listed.
        why: in one sentence, what speaks for or against the class; empty where there is nothing to say.
    """

    name: str
    images: int
    suspects: int
    separation: float
    limit: float
    why: str = ""


@dataclass(frozen=True)
class SuspectList:
    """All that was found.

    Attributes:
        detector: the name of the detector.
        source: the data set that was judged.
        teacher: sha256 of the teacher's file; empty where none was asked.
        classes: in the order of the class numbers.
        images: in the order of the data set.
        missing: key -> why an image was not judged.
        settings: of the detector.
    """

    detector: str
    source: str
    teacher: str
    classes: list[JudgedClass]
    images: list[JudgedImage]
    missing: dict[str, str]
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def keys(self) -> frozenset[str]:
        """The keys of the suspects."""
        return frozenset(image.key for image in self.images if image.suspect)

    def write(self, path: Path) -> None:
        """Write the list, whole or not at all.

        Raises:
            WriteError: it cannot be written.
        """
        make_folders(path.parent)
        head: dict[str, Any] = {"format": FORMAT, "format_version": FORMAT_VERSION, "detector": self.detector}
        head |= {"settings": self.settings, "source": self.source, "teacher": self.teacher}
        head |= {"classes": [asdict(judged) for judged in self.classes], "missing": self.missing}
        rows = ",\n".join(json.dumps(asdict(image)) for image in self.images)  # a line each: there may be a million
        write_whole(path, f'{json.dumps(head, indent=1)[:-2]},\n "images": [\n{rows}\n]}}\n'.encode())


def read_suspects(path: Path) -> frozenset[str]:
    """The keys of the suspects in a list.

    Args:
        path: a file that `diffclean suspects` wrote; or a JSON array of keys; or a `.csv` file with a header and a
            column `key`, in which a column `suspect`, where there is one, says which rows count (0, false, no and
            nothing stand for an image that is kept).

    Raises:
        DiffcleanError: it is missing, damaged, or something else.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DiffcleanError(f"{path}: {error.strerror}.", "Make it: diffclean suspects DATA") from error
    try:
        return _from_csv(data) if path.suffix.lower() == ".csv" else _from_json(data)
    except (ValueError, KeyError, TypeError, RecursionError, csv.Error) as error:
        raise DiffcleanError(
            f"{path} is not a list of suspects ({type(error).__name__}: {error}).",
            f"Give the {SUSPECTS_FILE} that `diffclean suspects` wrote, a JSON array of keys, or a .csv file with a "
            "column `key`.",
        ) from error


def _from_json(data: bytes) -> frozenset[str]:
    content: Any = json.loads(data)
    if isinstance(content, list):
        if not all(isinstance(key, str) for key in content):
            raise ValueError("an array of something else than keys")
        return frozenset(content)
    if content["format"] != FORMAT or content["format_version"] not in _READABLE:
        raise ValueError("not a list of suspects that this version reads")
    return frozenset(str(row["key"]) for row in content["images"] if row["suspect"] is True)


def _from_csv(data: bytes) -> frozenset[str]:
    rows = csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline=""))
    if "key" not in (rows.fieldnames or []):
        raise ValueError(f"no column `key` in {rows.fieldnames}")
    return frozenset(row["key"] for row in rows if str(row.get("suspect", "1")).strip().lower() not in _KEPT)
