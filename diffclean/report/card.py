"""The data card of a cleaned data set, in Croissant 1.1 (docs.mlcommons.org/croissant), with its origin in PROV-O.

It is written as plain JSON-LD, so that no library is needed to write it; the tests read it with `mlcroissant`.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from diffclean import __version__
from diffclean.data.atomic import write_whole
from diffclean.data.hashes import sha256_of
from diffclean.report.facts import Facts
from diffclean.report.limits import untested
from diffclean.report.verdict import verdict
from diffclean.report.words import images, one_line
from diffclean.results import json_text

CARD_FILE = "croissant.json"
CONFORMS_TO = ("http://mlcommons.org/croissant/1.1", "http://mlcommons.org/croissant/RAI/1.0")
_CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "prov": "http://www.w3.org/ns/prov#",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "description": {"@container": "@language"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "name": {"@container": "@language"},
    "conformsTo": "dct:conformsTo",
    "key": "cr:key",
    "md5": "cr:md5",
} | {
    term: f"cr:{term}"
    for term in (
        *("annotation", "arrayShape", "citeAs", "column", "containedIn", "equivalentProperty", "excludes", "extract"),
        *("field", "fileObject", "fileProperty", "fileSet", "format", "includes", "isArray", "isLiveDataset"),
        *("jsonPath", "parentField", "path", "readLines", "recordSet", "references", "regex", "repeated", "replace"),
        *("samplingRate", "sdVersion", "separator", "source", "subField", "transform", "unArchive", "value"),
    )
}
"""The context of the specification's first appendix, and PROV-O's prefix."""
_MIME = {
    **{"jpg": "image/jpeg", "tif": "image/tiff", "jp2": "image/jp2", "ico": "image/vnd.microsoft.icon"},
    **{"ppm": "image/x-portable-pixmap", "tga": "image/x-tga", "pcx": "image/x-pcx", "heic": "image/heic"},
}


def write_card(folder: Path, facts: Facts, variations: bool, cleaned: str = "cleaned") -> Path:
    """Write the data card of a cleaned data set.

    Args:
        folder: the folder that `clean` wrote. The card is written to its top level.
        facts: the facts about the run.
        variations: whether the cleaned data set holds variations; otherwise it holds originals.
        cleaned: the name of the data set, a folder in `folder`. `<cleaned>.csv` beside it has a row for each file
            (`file`, the key of its `original`, its `label`).

    Returns:
        The file of the card.

    Raises:
        OSError: the list of files cannot be read.
        WriteError: the card cannot be written.
    """
    write_whole(folder / CARD_FILE, (json_text(_card(folder, facts, variations, cleaned)) + "\n").encode())
    return folder / CARD_FILE


def _card(folder: Path, facts: Facts, variations: bool, cleaned: str) -> dict[str, Any]:
    listing = f"{cleaned}.csv"
    count, kinds = _files(folder / listing)
    found = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": list(CONFORMS_TO),
        "name": f"{facts.name}, cleaned",
        "description": _description(facts, count, variations),
        "version": "1.0.0",
        "datePublished": facts.created,
        "distribution": [_listing(folder, listing), _images(cleaned, kinds, variations, facts)],
        "recordSet": [_image_records(cleaned), _rows(listing)],
        "prov:wasDerivedFrom": _suspect_data(facts),
        "prov:wasGeneratedBy": _job(facts),
        "rai:dataPreprocessingProtocol": _protocol(facts, variations),
        "rai:dataLimitations": [one_line(sentence) for sentence in untested(facts)],
    }
    return {name: value for name, value in found.items() if value}


def _files(listing: Path) -> tuple[int, list[str]]:
    """Count the files of the cleaned data set, and collect their extensions as they are spelled."""
    with listing.open(encoding="utf-8", newline="") as file:
        names = [row["file"] for row in csv.DictReader(file)]
    found = {PurePosixPath(name).suffix for name in names}
    return len(names), sorted(kind if kind[1:].isalnum() else "" for kind in found)  # Others act as patterns.


def _description(facts: Facts, count: int, variations: bool) -> str:
    what = "variations of images" if variations else "images"
    judged = verdict(facts)
    return one_line(
        f"{count:,} {what} that diffclean kept of {images(facts.counts.images)}. The labels are those of the suspect "
        f"data. {judged.sentence} {' '.join(judged.reasons)}"
    )


def _listing(folder: Path, listing: str) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": "listing",
        "name": listing,
        "description": "A row for each file: its name, the image that it was made from or is, and its label.",
        "contentUrl": listing,
        "contentSize": f"{(folder / listing).stat().st_size} B",
        "encodingFormat": "text/csv",
        "sha256": sha256_of(folder / listing),
    }


def _images(cleaned: str, kinds: Iterable[str], variations: bool, facts: Facts) -> dict[str, Any]:
    kinds = list(kinds)
    found: dict[str, Any] = {
        "@type": "cr:FileSet",
        "@id": "image-files",
        "name": cleaned,
        "description": "Variations of the images that were kept." if variations else "The images that were kept.",
        "encodingFormat": sorted({_mime(kind) for kind in kinds}) or ["image/*"],
        "includes": [f"{cleaned}/**/*{kind}" for kind in kinds] or [f"{cleaned}/**/*"],
    }
    if variations:
        found["prov:wasDerivedFrom"] = {"@id": _suspect_data(facts)["@id"]}
        found["prov:wasGeneratedBy"] = _regeneration(facts)
    return found


def _mime(kind: str) -> str:
    name = kind.lower().lstrip(".")
    return _MIME.get(name, f"image/{name}" if name.isalnum() else "application/octet-stream")


def _field(name: str, description: str, kind: str | list[str], source: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"@type": "cr:Field", "@id": name, "name": name, "description": description, "dataType": kind, **more} | {
        "source": source
    }


def _image_records(cleaned: str) -> dict[str, Any]:
    def of_files(what: str, **transform: str) -> dict[str, Any]:
        found: dict[str, Any] = {"fileSet": {"@id": "image-files"}, "extract": {"fileProperty": what}}
        return found | ({"transform": transform} if transform else {})

    within = f"^(?:.*/)?{re.escape(cleaned)}/"
    path, label = f"{within}(.+)$", f"{within}([^/]+)/.+$"
    return {
        "@type": "cr:RecordSet",
        "@id": "images",
        "name": "images",
        "description": "A record for each image; its label is the folder that it lies in.",
        "key": {"@id": "images/file"},
        "field": [
            _field("images/file", "Path in the cleaned data set.", "sc:Text", of_files("fullpath", regex=path)),
            _field("images/content", "The image.", "sc:ImageObject", of_files("content")),
            _field(
                "images/label",
                "Its class.",
                ["sc:Text", "cr:Label"],
                of_files("fullpath", regex=label),
            ),
        ],
    }


def _rows(listing: str) -> dict[str, Any]:
    def of_column(name: str) -> dict[str, Any]:
        return {"fileObject": {"@id": "listing"}, "extract": {"column": name}}

    file = {"references": {"field": {"@id": "images/file"}}}
    origin = {"equivalentProperty": "prov:wasDerivedFrom"}
    return {
        "@type": "cr:RecordSet",
        "@id": "origins",
        "name": "origins",
        "description": f"What each file was made from, as {listing} says.",
        "key": {"@id": "origins/file"},
        "field": [
            _field("origins/file", "Path in the cleaned data set.", "sc:Text", of_column("file"), **file),
            _field("origins/original", "Its original in the suspect data.", "sc:Text", of_column("original"), **origin),
            _field("origins/label", "Its class.", ["sc:Text", "cr:Label"], of_column("label")),
        ],
    }


def _suspect_data(facts: Facts) -> dict[str, Any]:
    count = f"{images(facts.counts.images)} in {len(facts.counts.classes)} classes"
    return {
        "@type": "prov:Entity",
        "@id": "suspect-data",
        "prov:label": facts.name,
        "sc:description": f"The suspect data set: {count}.",
    }


def _agent() -> dict[str, Any]:
    return {"@type": "prov:SoftwareAgent", "@id": "diffclean", "prov:label": f"diffclean {__version__}"}


def _job(facts: Facts) -> dict[str, Any]:
    found: dict[str, Any] = {
        "@type": "prov:Activity",
        "@id": "clean",
        "prov:label": one_line(facts.command) or "diffclean clean",
        "prov:used": [{"@id": "suspect-data"}],
        "prov:wasAssociatedWith": _agent(),
    }
    return found | ({"prov:endedAtTime": facts.created} if facts.created else {})


def _regeneration(facts: Facts) -> dict[str, Any]:
    engine = facts.engine
    told = {
        "@type": "prov:Entity",
        "@id": "engine",
        "prov:label": engine.name or "engine",
        "sc:identifier": engine.fingerprint,
        "sc:license": engine.licence,
        "sc:description": engine.trained_on,
    }
    return {
        "@type": "prov:Activity",
        "@id": "regeneration",
        "prov:label": "Regeneration of every image by an image-variation diffusion model",
        "prov:used": [{"@id": "suspect-data"}, {name: value for name, value in told.items() if value}],
        "prov:wasAssociatedWith": {"@id": "diffclean"},
    }


def _protocol(facts: Facts, variations: bool) -> list[str]:
    said = []
    if facts.detection is not None:
        said.append(
            f"The detector {facts.detection.detector} judged {images(facts.detection.images)}; the "
            f"{facts.detection.suspects:,} that it listed were left out."
        )
    if variations:
        said.append(f"Every image was regenerated by {facts.engine.name or 'an image-variation diffusion model'}.")
    return said
