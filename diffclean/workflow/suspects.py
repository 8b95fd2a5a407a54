"""What `suspects` found, in the form in which it is told."""

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
    """A list of suspects that was written, and what it is worth where that is known.

    Attributes:
        out: the file of the list; None: it was not written.
        detector: the detector's name.
        source: the data set that was judged.
        images: how many images were judged.
        suspects: how many of them are listed.
        classes: what was found of each class.
        failed: key -> why an image was not judged.
        against_manifest: precision and recall, where a poison manifest was given.
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
        """A row an image: key, label, score, probability, suspect. Needs pandas."""
        assert self.listed is not None
        return table(self.listed.images)


def found_suspects(found: SuspectList, out: Path | None, poison: Path | None = None) -> FoundSuspects:
    """A list as it is told.

    Args:
        found: the list.
        out: its file.
        poison: the poison manifest of the data, to compare it with.
    """
    figures = measure_list(found, poison) if poison else None
    counts = len(found.images), len(found.keys)
    return FoundSuspects(out, found.detector, found.source, *counts, found.classes, found.missing, figures, found)


def reread(path: Path, poison: Path | None = None) -> FoundSuspects:
    """The same of a list that was written before."""
    return found_suspects(read_list(path), path, poison)
