"""The result of `suspects` as it is reported."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from diffclean.data.suspects import JudgedClass, SuspectList, read_list
from diffclean.evaluation.listed import ListFigures, measure_list
from diffclean.results import KEPT_BACK, WHERE_MEASURED, table

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True)
class FoundSuspects:
    """A list of suspects that was written, with its precision and recall if they are known.

    Attributes:
        out: the file of the list. None: the list was not written.
        detector: the detector's name.
        source: the data set that was judged.
        images: how many images were judged.
        suspects: how many of them are listed.
        classes: the findings for each class.
        failed: key -> the reason why an image was not judged.
        against_manifest: precision and recall, if a poison manifest was given.
        listed: the list itself, with every image.
    """

    out: Path | None
    detector: str
    source: str
    images: int
    suspects: int
    classes: list[JudgedClass]
    failed: dict[str, str]
    against_manifest: ListFigures | None = field(default=None, metadata=WHERE_MEASURED)
    listed: SuspectList | None = field(default=None, metadata=KEPT_BACK, repr=False)

    @property
    def keys(self) -> frozenset[str]:
        """The keys of the listed images."""
        assert self.listed is not None
        return self.listed.keys

    def to_pandas(self) -> DataFrame:
        """Return a table with a row per image: key, label, score, probability, suspect. Needs pandas."""
        assert self.listed is not None
        return table(self.listed.images)


def found_suspects(found: SuspectList, out: Path | None, poison: Path | None = None) -> FoundSuspects:
    """Return the result for a list.

    Args:
        found: the list.
        out: the file of the list.
        poison: the poison manifest of the data, with which the list is compared.
    """
    figures = measure_list(found, poison) if poison else None
    counts = len(found.images), len(found.keys)
    return FoundSuspects(out, found.detector, found.source, *counts, found.classes, found.missing, figures, found)


def reread(path: Path, poison: Path | None = None) -> FoundSuspects:
    """Return the result for a list that was written before."""
    return found_suspects(read_list(path), path, poison)
