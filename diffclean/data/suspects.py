"""The list of suspects: the images that a detector judges to be poisoned, and why.

`diffclean suspects` writes the list as JSON, or as CSV if the name of the file ends in `.csv`. A list may also come
from another program: `read_list` accepts a JSON array of keys and a CSV file with a column `key` as well.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from diffclean.data.atomic import clean_temporaries, make_folders, write_whole
from diffclean.data.json_file import json_of, read_limited
from diffclean.errors import DiffcleanError

SUSPECTS_FILE = "suspects.json"
FORMAT = "diffclean-suspects"
FORMAT_VERSION = 2
_READABLE = (1, FORMAT_VERSION)
_LIMIT_BYTES = 512 * 2**20
"""The largest list that is read, for about three million images."""
_KEPT = frozenset({"0", "0.0", "false", "f", "no", "n", ""})
_LISTED = frozenset({"1", "1.0", "true", "t", "yes", "y"})
"""The values of the column `suspect` in a CSV file, in lower case."""


@dataclass(frozen=True)
class JudgedImage:
    """The judgement on one image.

    Attributes:
        key: the key of the image in its data set.
        label: the class that the data set gives the image.
        score: how suspect the image is; higher is more suspect. Scores are comparable within one list only. NaN if a
            list from another program has no scores.
        probability: the probability that the image is poisoned, in [0, 1].
        suspect: whether the image should be left out.
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
        images: the number of images of the class that were judged.
        suspects: how many of them are listed.
        separation: the detector's measure of how clearly the listed images differ from the others; 0 for not at all.
        limit: the separation from which images are listed.
        why: one sentence with the reasons for or against the class; empty if there are none.
        too_few: whether the class has fewer images than the detector can judge. None of them is then listed, which does
            not mean that they are clean.
        picture: a PNG file in base64 that shows what the listed images have in common, or empty if the detector has
            none.
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
    """Everything that a detector found.

    Attributes:
        detector: the name of the detector.
        source: the data set that was judged.
        teacher: the sha256 of the teacher's file; empty if no teacher was used.
        classes: the classes, in the order of the class numbers.
        images: the images, in the order of the data set.
        missing: key -> why an image was not judged.
        settings: the settings of the detector.
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
        """Write the list, whole or not at all: as CSV if the name ends in `.csv`, otherwise as JSON.

        CSV has a row for every image (the fields of `JudgedImage`; `suspect` is 1 or 0) and nothing else.

        Raises:
            WriteError: the list cannot be written.
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


def merged(first: SuspectList, found: SuspectList) -> SuspectList:
    """One list with the suspects of two lists of the same data set.

    Args:
        first: an earlier list, in any form that `read_list` reads.
        found: a list with a row for every image that was judged. The scores and what was found about each class are
            taken from it.

    Returns:
        The list. An image on both has the higher of the two probabilities. The counts of the classes include the images
        of both lists, and the reasons say how many of them are new.
    """
    before = {image.key: image for image in first.images if image.suspect}
    images = [
        replace(image, suspect=True, probability=max(image.probability, before[image.key].probability))
        if image.key in before
        else image
        for image in found.images
    ]
    judged = {image.key for image in images}
    unjudged = [image for key, image in before.items() if key not in judged]
    listed = Counter(image.label for image in images if image.suspect)
    known = Counter(image.label for image in images if image.key in before)
    classes = [_with_both(each, listed[each.name], known[each.name]) for each in found.classes]
    settings = found.settings | {"first_list": {"detector": first.detector, "suspects": len(before)}}
    return replace(found, images=images + unjudged, classes=classes, settings=settings)


def _with_both(judged: JudgedClass, listed: int, known: int) -> JudgedClass:
    """A class of a list that two lists were merged into: `listed` suspects, of which `known` were on the first list."""
    if not listed:
        return judged
    return replace(judged, suspects=listed, why=f"{judged.why} New among them: {listed - known}.".strip())


_COLUMNS = tuple(column.name for column in fields(JudgedImage))


def read_suspects(path: Path) -> frozenset[str]:
    """The keys of the suspects in a list; arguments and errors are those of `read_list`."""
    return read_list(path).keys


def read_list(path: Path) -> SuspectList:
    """Read a list of suspects.

    Args:
        path: a file that `diffclean suspects` wrote; a JSON array of keys; or a `.csv` file with a header and a column
            `key`. If the CSV file has a column `suspect`, this column says which rows count (0, false, no and an empty
            field mark an image that is kept).

    Returns:
        The content of the file. A list of keys alone has one row per suspect, without a score. An image that has no row
        and is not in `missing` was judged and is kept.

    Raises:
        DiffcleanError: the file is missing, damaged, or not a list of suspects.
    """
    try:
        data = read_limited(path, _LIMIT_BYTES)
    except DiffcleanError as error:
        raise DiffcleanError(
            f"The list of suspects cannot be used. {error.message}", "To make it: diffclean suspects DATA"
        ) from error
    try:
        return _from_csv(data) if _is_csv(path) else _from_json(data)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, csv.Error) as error:
        raise DiffcleanError(
            f"{path} is not a list of suspects ({type(error).__name__}: {error}).",
            f"Give the {SUSPECTS_FILE} that `diffclean suspects` wrote, a JSON array of keys, or a .csv file with a "
            "column `key`.",
        ) from error


def _is_csv(path: Path) -> bool:
    return path.suffix.lower() == ".csv"


def _from_json(data: bytes) -> SuspectList:
    content: Any = json_of(data, infinities=True, file_names=True)
    if isinstance(content, list):
        if not all(isinstance(key, str) for key in content):
            raise ValueError("the array must hold keys only")
        return SuspectList("", "", "", [], [JudgedImage(key, "", math.nan, 1.0, True) for key in content], {})
    if content["format"] != FORMAT or content["format_version"] not in _READABLE:
        raise ValueError("the format is not one that this version reads")
    first = content["format_version"] == 1  # version 1 used the field names of the only detector
    images = [_from_version_1(row) if first else _image(row) for row in content["images"]]
    listed = Counter(image.label for image in images if image.suspect)  # a person may have changed the list since
    return SuspectList(
        "variation-drop" if first else str(content["detector"]),
        "" if first else str(content["source"]),
        str(content["teacher"]),
        [replace(found, suspects=listed[found.name]) for found in map(_class, content["classes"])],
        images,
        {str(key): str(why) for key, why in content["missing"].items()},
        {} if first else dict(content["settings"]),
    )


_KINDS: dict[str, Any] = {"str": str, "int": int, "float": (int, float), "bool": bool}
_CLASS_FIELDS = {column.name: _KINDS[str(column.type)] for column in fields(JudgedClass)}


def _class(row: Mapping[str, Any]) -> JudgedClass:
    values = {name: row[name] for name in _CLASS_FIELDS if name in row}
    for name, value in values.items():
        kind = _CLASS_FIELDS[name]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise TypeError(f"{name} of a class is {value!r:.80}")
        if kind == (int, float):
            values[name] = float(value)
    return JudgedClass(**values)


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
    said = str(row.get("suspect", "1") or "").strip().lower()
    if said not in _KEPT | _LISTED:
        raise ValueError(f"{said[:40]!r} in the column `suspect`; expected 1 or 0")
    suspect = said in _LISTED
    score, probability = row.get("score"), row.get("probability")
    return JudgedImage(
        row["key"],
        row.get("label") or "",
        float(score) if score else math.nan,
        float(probability) if probability else float(suspect),
        suspect,
    )
