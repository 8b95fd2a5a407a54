"""Activation clustering (Chen et al. 2018, arXiv 1811.03728): a published method, included for comparison.

The classifier gives the clean and the poisoned images of a poisoned class the same answer, but for different reasons.
The method reduces the features of each class to ten dimensions and divides them into two clusters by 2-means. A clean
class divides badly, into about equal halves. A poisoned class divides well, into the clean images and a smaller cluster
of poisoned ones. The smaller cluster is listed if the silhouette (Rousseeuw 1987) is above a limit and the cluster is
not too large (sections 4 and 5 of the paper).

The paper reduces the dimensions by independent component analysis. Independent components are whitened principal
components after a rotation. 2-means and silhouettes depend on distances only, and a rotation does not change distances.
This file therefore leaves out the rotation; nothing else differs from the paper.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diffclean.data.suspects import JudgedClass
from diffclean.detection.base import Evidence, Judgement
from diffclean.detection.features import penultimate
from diffclean.progress import Progress

_DIMENSIONS = 10
_STARTS, _STEPS = 10, 100
"""2-means keeps the best of ten starts. Each start runs until no image changes cluster, for at most `_STEPS` steps."""
_COMPARED = 1000
"""The number of images of a class whose silhouettes are computed: each silhouette needs the distances to all others."""
_FEWEST = 2 * _DIMENSIONS
"""With fewer images than this, a class is not judged, because ten dimensions then say nothing about it."""

Points = NDArray[np.float64]


@dataclass(frozen=True)
class Clustering:
    """Two clusters in the features of each class.

    Attributes:
        silhouette: the mean silhouette above which the smaller cluster counts as poisoned; the paper puts the border at
            0.10 to 0.15.
        largest: the share of the class above which a cluster is too large to be the poisoned one.
    """

    silhouette: float = 0.15
    largest: float = 0.35

    name = "clustering"
    citation = "Chen et al. 2018, Detecting Backdoor Attacks by Activation Clustering, arXiv 1811.03728"
    needs_teacher = True
    needs_variations = False
    needs_retrained = False

    def judge(self, evidence: Evidence, progress: Progress) -> Judgement:
        """See `Detector.judge`."""
        assert evidence.teacher is not None
        images, labels = evidence.images, evidence.images.labels.numpy()
        features, what = penultimate(evidence.teacher, images, evidence.device)
        scores = np.zeros(len(labels))
        suspects = np.zeros(len(labels), np.bool_)
        judged = []
        for name, number in images.class_to_idx.items():
            here = np.flatnonzero(labels == number)
            if len(here) < _FEWEST:
                why = f"It has {len(here)} images; at least {_FEWEST} are needed."
                judged.append(JudgedClass(name, len(here), 0, 0.0, self.silhouette, why, too_few=True))
                continue
            rng = np.random.default_rng([evidence.seed, number])
            points = _whitened(features[here].astype(np.float64))
            smaller, nearer = _parted(points, rng)
            separation, share = _silhouette(points, smaller, rng), float(smaller.mean())
            scores[here] = separation + nearer if separation > self.silhouette else nearer
            guilty = separation > self.silhouette and share <= self.largest
            suspects[here] = smaller & guilty
            why = f"In {what}, {share:.0%} of its images make the smaller of two clusters"
            why += "." if share <= self.largest else f"; a poisoned one has at most {self.largest:.0%}."
            judged.append(JudgedClass(name, len(here), int(suspects[here].sum()), separation, self.silhouette, why))
        return Judgement(scores, suspects.astype(np.float64), suspects, judged)


def _whitened(features: Points) -> Points:
    """Reduce (n, D) features to (n, up to 10) principal components of deviation one, without constant ones."""
    centred = features - features.mean(0)
    if centred.shape[1] > len(centred):
        values, left = np.linalg.eigh(centred @ centred.T)
    else:
        values, right = np.linalg.eigh(centred.T @ centred)
        left = centred @ right / np.sqrt(np.maximum(values, 1e-300))
    kept = [one for one in np.argsort(-values)[:_DIMENSIONS] if values[one] > 1e-9 * values.max()]
    points: Points = left[:, kept] * np.sqrt(len(centred))
    return points


def _parted(points: Points, rng: np.random.Generator) -> tuple[NDArray[np.bool_], Points]:
    """Divide points into two clusters by 2-means (Lloyd 1982) with the starts of k-means++.

    Returns:
        (n,) bool, which points are in the smaller cluster; and (n,) float64 in [-1, 1], how much nearer a point is to
        the centre of the smaller cluster than to the other centre.
    """
    best, tightest = None, np.inf
    for _ in range(_STARTS):
        first = points[rng.integers(len(points))]
        far = ((points - first) ** 2).sum(1)
        second = points[rng.choice(len(points), p=far / far.sum())] if far.sum() > 0 else first
        centres = np.stack([first, second])
        for _ in range(_STEPS):
            distances = ((points[:, None] - centres) ** 2).sum(2)  # (n, 2)
            upper = distances[:, 1] < distances[:, 0]
            if upper.all() or not upper.any():
                break
            moved = np.stack([points[~upper].mean(0), points[upper].mean(0)])
            if np.array_equal(moved, centres):
                break
            centres = moved
        if distances.min(1).sum() < tightest:
            best, tightest = distances, float(distances.min(1).sum())
    assert best is not None
    upper = best[:, 1] < best[:, 0]
    roots = np.sqrt(best)
    nearer = (roots[:, 0] - roots[:, 1]) / np.maximum(roots.sum(1), 1e-12)
    return (upper, nearer) if upper.mean() <= 0.5 else (~upper, -nearer)


def _silhouette(points: Points, smaller: NDArray[np.bool_], rng: np.random.Generator) -> float:
    """The mean silhouette of a sample of the points, in [-1, 1]; 0 if there is only one cluster."""
    some = rng.permutation(len(points))[:_COMPARED]
    points, smaller = points[some], smaller[some]
    counts = np.array([(~smaller).sum(), smaller.sum()])
    if counts.min() < 2:
        return 0.0
    squares = (points**2).sum(1)
    distances = np.sqrt(np.maximum(squares[:, None] + squares - 2 * points @ points.T, 0))
    sums = np.stack([distances[:, ~smaller].sum(1), distances[:, smaller].sum(1)], 1)
    rows, own = np.arange(len(points)), smaller.astype(np.int64)
    inside, outside = sums[rows, own] / (counts[own] - 1), sums[rows, 1 - own] / counts[1 - own]
    return float(((outside - inside) / np.maximum(np.maximum(inside, outside), 1e-12)).mean())
