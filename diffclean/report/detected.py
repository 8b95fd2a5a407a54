"""Prepares a list of suspects for the report: chooses the images to show, and collects the scores of each class."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from random import Random

import numpy as np

from diffclean.data.suspects import JudgedClass, JudgedImage, SuspectList
from diffclean.evaluation.listed import ListFigures
from diffclean.report.facts import ClassScores, Detection, Suspect

SUREST = 36
"""Suspects in the gallery that the detector is surest of."""
UNSUREST = 12
"""Suspects in the gallery that are nearest to being kept: mistakes are found there first."""
BESIDE = 24
"""Kept images that are shown beside them."""
BINS = 24


def detection(
    found: SuspectList,
    variations: Mapping[str, str] | None = None,
    reasons: Mapping[str, str] | None = None,
    poisoned: Mapping[str, bool] | None = None,
    measured: ListFigures | None = None,
    added: Sequence[int] = (),
    seed: int = 1,
) -> Detection:
    """Return what the report needs of a list of suspects.

    Args:
        found: the list.
        variations: key -> key of a variation of that image; see `variation_run.variations_of`.
        reasons: key -> what speaks against that image, if there is more to say than about its class.
        poisoned: key -> whether the image is poisoned, if a poison manifest says so.
        measured: precision and recall, if they are known.
        added: how many of the suspects each second pass added.
        seed: the seed for the choice of the kept images that are shown.
    """
    shown, beside = chosen(found, seed)
    of_class: dict[str, list[JudgedImage]] = {}
    for image in found.images:
        of_class.setdefault(image.label, []).append(image)
    rest = variations or {}, reasons or {}, poisoned
    return Detection(
        detector=found.detector,
        images=len(found.images),
        suspects=sum(image.suspect for image in found.images),
        unjudged=len(found.missing),
        added=tuple(added),
        classes=tuple(_class(judged, of_class.get(judged.name, [])) for judged in _classes(found, of_class)),
        shown=tuple(_shown(image, *rest) for image in shown),
        beside=tuple(_shown(image, *rest) for image in beside),
        measured=measured,
        settings=found.settings,
    )


def chosen(found: SuspectList, seed: int = 1) -> tuple[list[JudgedImage], list[JudgedImage]]:
    """Choose the suspects and the kept images that the report shows; callers that need pictures get the keys from here.

    If there are many suspects, the most certain ones are taken first and the least certain ones after them. Kept images
    are drawn at random, half of them from classes in which images are listed.
    """
    suspects = sorted((image for image in found.images if image.suspect), key=_surest_first)
    if len(suspects) > SUREST + UNSUREST:
        suspects = suspects[:SUREST] + suspects[-UNSUREST:]
    kept = [image for image in found.images if not image.suspect]
    hit = {image.label for image in suspects}
    random = Random(seed)
    near = _drawn(random, [image for image in kept if image.label in hit], BESIDE // 2)
    taken = {image.key for image in near}
    others = _drawn(random, [image for image in kept if image.key not in taken], BESIDE - len(near))
    return suspects, near + others


def _surest_first(image: JudgedImage) -> tuple[float, float, str]:
    score = -math.inf if math.isnan(image.score) else image.score
    return -image.probability, -score, image.key


def _drawn(random: Random, images: Sequence[JudgedImage], count: int) -> list[JudgedImage]:
    return random.sample(images, min(count, len(images)))


def _classes(found: SuspectList, of_class: Mapping[str, list[JudgedImage]]) -> Iterable[JudgedClass]:
    """Return the classes of the list or, if a foreign list has none, what can be counted from its images."""
    if found.classes:
        return found.classes
    return [
        JudgedClass(name, len(images), sum(image.suspect for image in images), math.nan, math.nan)
        for name, images in of_class.items()
        if name
    ]


def _class(judged: JudgedClass, images: Sequence[JudgedImage]) -> ClassScores:
    scores = np.array([image.score for image in images], np.float64)
    listed = np.array([image.suspect for image in images], np.bool_)
    known = np.isfinite(scores)
    told = ClassScores(
        judged.name,
        judged.images,
        judged.suspects,
        _known(judged.separation),
        _known(judged.limit),
        judged.why,
        judged.too_few,
        picture=judged.picture,
    )
    if not known.any():
        return told
    return _spread(told, scores[known], listed[known])


def _spread(told: ClassScores, scores: np.ndarray, listed: np.ndarray) -> ClassScores:
    low, high = float(scores.min()), float(scores.max())
    high = high if high > low else low + 1.0
    kept_counts, listed_counts = (
        tuple(int(count) for count in np.histogram(scores[which], BINS, (low, high))[0]) for which in (~listed, listed)
    )
    lowest = float(scores[listed].min()) if listed.any() else None
    return replace(told, low=low, high=high, kept=kept_counts, listed=listed_counts, lowest_listed=lowest)


def _known(number: float) -> float | None:
    return None if math.isnan(number) else number


def _shown(
    image: JudgedImage,
    variations: Mapping[str, str],
    reasons: Mapping[str, str],
    poisoned: Mapping[str, bool] | None,
) -> Suspect:
    return Suspect(
        image.key,
        image.label,
        _known(image.score),
        _known(image.probability) if not math.isnan(image.score) else None,
        variations.get(image.key, ""),
        reasons.get(image.key, ""),
        None if poisoned is None else poisoned.get(image.key),
    )
