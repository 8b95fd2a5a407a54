"""Which label a variation gets, and so which folder it lies in.

The labels of suspect data are suspect, and a variation has its source's: that of a poisoned image still lies in the
target's folder. Whoever wants an output that cannot be mistaken for clean labels asks for none, or for the answer of a
classifier to the variation itself.
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
from diffclean.data.keys import key_bytes
from diffclean.data.manifest import Row
from diffclean.errors import DiffcleanError, UsageError

if TYPE_CHECKING:
    from diffclean.classifiers.loading import LoadedClassifier

KEEP, NONE = "keep", "none"

NOTES = {
    KEEP: "The labels are those of the source, and as suspect as it is: variations of poisoned images lie in the "
    "target's class.",
    NONE: f"There are no labels: all variations lie in {UNLABELLED}/, and training on labels refuses them. The "
    "manifest has the source's labels as source_label.",
}
_BY_CLASSIFIER = (
    "Each label is a classifier's answer to the variation. It is wrong where the classifier is, and where a trigger "
    "still works on it. The manifest has the source's labels as source_label."
)


class Labeller(Protocol):
    """Decides the label of a variation."""

    def classes(self, of_source: Mapping[str, int]) -> dict[str, int]:
        """The `class_to_idx` of the output, from the source's."""

    def labelled(self, row: Row, pixels: NDArray[np.uint8]) -> Row:
        """The row with its label and the place that follows from it; `row` has those of the source.

        Args:
            row: of the variation.
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
    """On the CPU, one variation at a time: the same answer whatever the batch or the process."""

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
    """What decides the labels.

    Args:
        labels: `keep`, `none`, or the file of a classifier that says all about itself.

    Raises:
        DiffcleanError: the file cannot be read, or its classes cannot be folders.
        UsageError: the file does not say which network and classes it is of.
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
    """What decides the labels, for `run.json`: of a classifier its content, wherever it lies.

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
    """What everybody who is handed the output should know about its labels."""
    return NOTES.get(labels, _BY_CLASSIFIER)


def _check_folders(classes: Mapping[str, int], file: str) -> None:
    """A class becomes a folder: its name comes from a file and must not lead anywhere else."""
    for name in classes:
        if "/" in name or name.startswith("."):
            raise DiffcleanError(f"`labels` {file}: its class {name!a} cannot be the name of a folder.")
        key_bytes(name)
    if twice := [name for name, count in Counter(name.casefold() for name in classes).items() if count > 1]:
        raise DiffcleanError(f"`labels` {file}: {twice[0]!a} is one folder for several classes on some disks.")
