"""Measures how good a list of suspects is, if a poison manifest says which images are poisoned."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from diffclean.attacks.base import Form
from diffclean.attacks.manifest import read_poison_manifest
from diffclean.attacks.record import PoisonedImage, PoisonManifest
from diffclean.data.suspects import SuspectList, read_list
from diffclean.errors import UsageError
from diffclean.evaluation.metrics import Rate, auroc, rate


@dataclass(frozen=True)
class ListFigures:
    """The quality of a list. A clean image is one that is neither poisoned nor a cover.

    Covers carry the trigger and keep their true label, so listing one is neither right nor wrong. They count neither
    for nor against the list, and have a rate of their own.

    Attributes:
        attack: the attack that made the data set.
        precision: the share of listed images other than covers that are poisoned.
        recall: the share of poisoned images that are listed (TPR).
        false_positive_rate: the share of clean images that are listed (FPR).
        covers: the share of covers that are listed.
        auroc: the probability that a poisoned image has a higher score than a clean one, in [0, 1]; NaN if the list has
            no scores, or only one of the two kinds.
        unjudged: the number of images that are not counted, because according to the list they could not be judged.
    """

    attack: str
    precision: Rate
    recall: Rate
    false_positive_rate: Rate
    covers: Rate
    auroc: float
    unjudged: int


def measure_list(found: SuspectList | Path, manifest: PoisonManifest | Path) -> ListFigures:
    """Compare a list of suspects with the truth.

    Args:
        found: the list, or its file in any form that `read_list` takes. An image without a row counts as judged and not
            listed.
        manifest: the poison manifest of the data set that was judged, or its file.

    Raises:
        UsageError: the list names images that the manifest does not have.
        DiffcleanError: a file cannot be read.
    """
    found = read_list(found) if isinstance(found, Path) else found
    manifest = read_poison_manifest(manifest) if isinstance(manifest, Path) else manifest
    rows = {row.output: row for row in manifest.images}
    if strange := [image.key for image in found.images if image.key not in rows]:
        raise UsageError(
            f"{len(strange)} of the {len(found.images)} images on the list are not in the poison manifest, such as "
            f"{strange[0]}.",
            "Give the poison.json of the data set that was judged.",
        )
    score_of = {image.key: image.score for image in found.images}
    images = [row for row in manifest.images if row.output in score_of or row.output not in found.missing]
    suspects = found.keys
    listed = np.array([row.output in suspects for row in images], np.bool_)
    poisoned = np.array([_is_poisoned(row, manifest) for row in images], np.bool_)
    cover = np.array([row.cover for row in images], np.bool_) & ~poisoned
    clean = ~poisoned & ~cover
    scores = np.array([score_of.get(row.output, np.nan) for row in images])
    known = ~np.isnan(scores)
    return ListFigures(
        attack=manifest.attack,
        precision=rate(int((listed & poisoned).sum()), int((listed & ~cover).sum())),
        recall=rate(int((listed & poisoned).sum()), int(poisoned.sum())),
        false_positive_rate=rate(int((listed & clean).sum()), int(clean.sum())),
        covers=rate(int((listed & cover).sum()), int(cover.sum())),
        auroc=auroc(scores[poisoned & known], scores[clean & known]),
        unjudged=len(manifest.images) - len(images),
    )


def _is_poisoned(row: PoisonedImage, manifest: PoisonManifest) -> bool:
    return row.poisoned or manifest.form is Form.TEST  # every image of a triggered test set carries the trigger
