"""The list of suspects: which images a detector thinks are poisoned, and why.

`diffclean suspects` writes it as JSON, or as CSV where the file's name ends in `.csv`. A list may also come from
somewhere else: `read_list` takes a JSON array of keys, or a CSV file with a column `key`, as well.
"""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from diffclean.data.atomic import clean_temporaries, make_folders, write_whole
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
        score: how suspect it is; higher is more suspect, comparable within one list only. NaN where a list from
            somewhere else does not say.
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
        too_few: whether it has fewer images than the detector can judge; then none of them is listed, and that says
            nothing.
        picture: a PNG file in base64 that shows what the listed images have in common, where the detector can say;
            else empty.
    """

    name: str
    images: int
    suspects: int
    separation: float
    limit: float
    why: str = ""
    too_few: bool = False
    picture: str = ""


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
        """Write the list, whole or not at all: as CSV where the name ends in `.csv`, else as JSON.

        CSV has a row for every image (the fields of `JudgedImage`; `suspect` is 1 or 0) and nothing else.

        Raises:
            WriteError: it cannot be written.
        """
        make_folders(path.parent)
        clean_temporaries(path.parent, below=False)
        write_whole(path, (self._as_csv() if _is_csv(path) else self._as_json()).encode())

    def _as_json(self) -> str:
        head: dict[str, Any] = {"format": FORMAT, "format_version": FORMAT_VERSION, "detector": self.detector}
        head |= {"settings": self.settings, "source": self.source, "teacher": self.teacher}
        head |= {"classes": [asdict(judged) for judged in self.classes], "missing": self.missing}
        rows = ",\n".join(json.dumps(vars(image)) for image in self.images)  # a line each: there may be a million
        return f'{json.dumps(head, indent=1)[:-2]},\n "images": [\n{rows}\n]}}\n'

    def _as_csv(self) -> str:
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(_COLUMNS)
        writer.writerows((*list(vars(image).values())[:-1], int(image.suspect)) for image in self.images)
        return text.getvalue()


_COLUMNS = tuple(column.name for column in fields(JudgedImage))


def read_suspects(path: Path) -> frozenset[str]:
    """The keys of the suspects in a list; arguments and errors as for `read_list`."""
    return read_list(path).keys


def read_list(path: Path) -> SuspectList:
    """Read a list of suspects.

    Args:
        path: a file that `diffclean suspects` wrote; or a JSON array of keys; or a `.csv` file with a header and a
            column `key`, in which a column `suspect`, where there is one, says which rows count (0, false, no and
            nothing stand for an image that is kept).

    Returns:
        All that the file says. A list of keys alone has a row for each suspect, without a score; an image that has no
        row, and is not in `missing`, was judged and is kept.

    Raises:
        DiffcleanError: the file is missing, damaged, or something else.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DiffcleanError(f"{path}: {error.strerror}.", "Make it: diffclean suspects DATA") from error
    try:
        return _from_csv(data) if _is_csv(path) else _from_json(data)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, csv.Error) as error:
        raise DiffcleanError(
            f"{path} is not a list of suspects ({type(error).__name__}: {error}).",
            f"Give the {SUSPECTS_FILE} that `diffclean suspects` wrote, a JSON array of keys, or a .csv file with a "
            "column `key`.",
        ) from error


def _is_csv(path: Path) -> bool:
    return path.suffix.lower() == ".csv"


def _from_json(data: bytes) -> SuspectList:
    content: Any = json.loads(data)
    if isinstance(content, list):
        if not all(isinstance(key, str) for key in content):
            raise ValueError("an array of something else than keys")
        return SuspectList("", "", "", [], [JudgedImage(key, "", math.nan, 1.0, True) for key in content], {})
    if content["format"] != FORMAT or content["format_version"] not in _READABLE:
        raise ValueError("not a list of suspects that this version reads")
    first = content["format_version"] == 1  # it had the names of its only detector
    return SuspectList(
        "variation-drop" if first else str(content["detector"]),
        "" if first else str(content["source"]),
        str(content["teacher"]),
        [JudgedClass(**{name: row[name] for name in _CLASS_FIELDS & row.keys()}) for row in content["classes"]],
        [_from_version_1(row) if first else _image(row) for row in content["images"]],
        {str(key): str(why) for key, why in content["missing"].items()},
        {} if first else dict(content["settings"]),
    )


_CLASS_FIELDS = {column.name for column in fields(JudgedClass)}


def _image(row: dict[str, Any]) -> JudgedImage:
    score, probability = float(row["score"]), float(row["probability"])
    return JudgedImage(str(row["key"]), str(row["label"]), score, probability, row["suspect"] is True)


def _from_version_1(row: dict[str, Any]) -> JudgedImage:
    suspect = row["suspect"] is True
    return JudgedImage(str(row["key"]), str(row["answer"]), float(row["drop"]), float(suspect), suspect)


def _from_csv(data: bytes) -> SuspectList:
    rows = csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline=""))
    if "key" not in (rows.fieldnames or []):
        raise ValueError(f"no column `key` in {rows.fieldnames}")
    return SuspectList("", "", "", [], [_csv_image(row) for row in rows], {})


def _csv_image(row: dict[str, str | None]) -> JudgedImage:
    if not row["key"]:
        raise ValueError("a row without a key")
    suspect = str(row.get("suspect", "1") or "").strip().lower() not in _KEPT
    score, probability = row.get("score"), row.get("probability")
    return JudgedImage(
        row["key"],
        row.get("label") or "",
        float(score) if score else math.nan,
        float(probability) if probability else float(suspect),
        suspect,
    )
