"""Determines the label of a variation, and thereby the folder that it is written to.

The labels of suspect data are suspect, and by default a variation has the label of its source: the variation of a
poisoned image is in the folder of the target class. To get an output that cannot be mistaken for one with clean labels,
write no labels, or the answer of a classifier to each variation.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from diffclean.data.classes import UNLABELLED
from diffclean.data.keys import NameCollisionError, check_collisions, key_bytes
from diffclean.data.manifest import Row
from diffclean.errors import DiffcleanError, UsageError

if TYPE_CHECKING:
    from diffclean.classifiers.loading import LoadedClassifier

KEEP, NONE = "keep", "none"

NOTES = {
    KEEP: "The labels are those of the source and as suspect as the source: variations of poisoned images are in the "
    "folder of the target class.",
    NONE: f"The output has no labels: all variations are in {UNLABELLED}/, which `train` refuses. The manifest has the "
    "labels of the source in the column source_label.",
}
_BY_CLASSIFIER = (
    "Each label is a classifier's answer to the variation. It is wrong if the classifier is wrong, or if a trigger "
    "still works on it. The manifest has the labels of the source in the column source_label."
)


class Labeller(Protocol):
    """Determines the label of a variation."""

    def classes(self, of_source: Mapping[str, int]) -> dict[str, int]:
        """The `class_to_idx` of the output, given that of the source."""

    def labelled(self, row: Row, pixels: NDArray[np.uint8]) -> Row:
        """Put the label, and the output path that follows from it, into the row of a variation.

        Args:
            row: the row of the variation, with the label and path of its source.
            pixels: (H, W, 3) uint8, the variation.
        """


class _Kept:
    def classes(self, of_source: Mapping[str, int]) -> dict[str, int]:
        return dict(of_source)

    def labelled(self, row: Row, pixels: NDArray[np.uint8]) -> Row:
        return row


class _Without:
    def classes(self, of_source: Mapping[str, int]) -> dict[str, int]:
        return {}

    def labelled(self, row: Row, pixels: NDArray[np.uint8]) -> Row:
        return replace(row, label="", output=f"{UNLABELLED}/{row.output}")


class _ByClassifier:
    """Asks a classifier on the CPU, one variation at a time, so that the answer does not depend on the batch."""

    def __init__(self, classifier: LoadedClassifier) -> None:
        self._classifier = classifier
        self._names = list(classifier.class_to_idx)

    def classes(self, of_source: Mapping[str, int]) -> dict[str, int]:
        return dict(self._classifier.class_to_idx)

    def labelled(self, row: Row, pixels: NDArray[np.uint8]) -> Row:
        import torch

        image = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))[None].float() / 255
        label = self._names[int(self._classifier.logits(image).argmax())]
        return replace(row, label=label, output=f"{label}/{row.output}")


def labeller_for(labels: str) -> Labeller:
    """Choose what determines the labels.

    Args:
        labels: `keep`, `none`, or a classifier file that also states its network and classes.

    Raises:
        DiffcleanError: the file cannot be read, or its classes cannot be folders.
        UsageError: the file does not state its network and classes.
    """
    if labels == KEEP:
        return _Kept()
    if labels == NONE:
        return _Without()
    import torch

    from diffclean.classifiers import loading
    from diffclean.classifiers.classifier_file import ClassifierFile

    try:
        classifier = loading.load(ClassifierFile(Path(labels)), {}, torch.device("cpu"))
    except UsageError as error:
        raise UsageError(
            f"`labels` {labels}: {error.message}", "Give keep, none, or a classifier that `diffclean train` wrote."
        ) from error
    _check_folders(classifier.class_to_idx, labels)
    return _ByClassifier(classifier)


def identity_of(labels: str) -> str:
    """What determines the labels, for `run.json`; for a classifier it is the hash of its content, wherever the file is.

    Raises:
        DiffcleanError: there is no such file.
    """
    if labels in (KEEP, NONE):
        return labels
    try:
        with Path(labels).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DiffcleanError(
            f"`labels` {labels}: {error.strerror}.", "Give keep, none, or the file of a classifier."
        ) from error


def note_on(labels: str) -> str:
    """What everyone who receives the output should know about its labels."""
    return NOTES.get(labels, _BY_CLASSIFIER)


def _check_folders(classes: Mapping[str, int], file: str) -> None:
    """Check that each class can be a folder: the names come from a file and must not lead anywhere else."""
    for name in classes:
        if "/" in name or name.startswith("."):
            raise DiffcleanError(f"`labels` {file}: its class {name!a} cannot be the name of a folder.")
        key_bytes(name)
    if twice := [name for name, count in Counter(name.casefold() for name in classes).items() if count > 1]:
        raise DiffcleanError(
            f"`labels` {file}: several classes would share the folder {twice[0]!a} on disks that ignore case."
        )
    try:
        check_collisions([f"{name}/image.png" for name in classes])
    except NameCollisionError as error:  # one in two Unicode forms, or one called like a file of the run
        raise DiffcleanError(f"`labels` {file}: {error.problems[0]}.") from error
