"""Spectral signatures (Tran, Li and Madry 2018, arXiv 1811.00636): a published method, included for comparison.

If a class has a few poisoned images that look alike to the classifier, they spread its features along one direction
more than anything else does. Algorithm 1 of the paper, for each label: subtract the mean from the features of its
images, and take the top right singular vector of that matrix. The score of an image is the square of its projection on
this vector. The `1.5 * epsilon` of the images with the highest scores are removed, where epsilon is an upper bound on
the share of poisoned images.

The paper does not decide whether a class is poisoned: it removes the same share of every class, in clean data too. The
probability is our own addition: it says how clearly the signed projections fall into two groups (`mixture.split`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diffclean.data.suspects import JudgedClass
from diffclean.detection.base import Evidence, Judgement
from diffclean.detection.features import penultimate
from diffclean.detection.mixture import split
from diffclean.progress import Progress

_MARGIN = 1.5
"""The multiple of epsilon that is removed, as in Algorithm 1."""
_STEPS = 100
"""The number of steps of the power iteration. If they do not suffice, no direction stands out, and the method has
nothing to work with."""


@dataclass(frozen=True)
class Spectral:
    """Outliers along the direction in which the features of a class vary most.

    Attributes:
        epsilon: an upper bound on the share of a class that is poisoned.
    """

    epsilon: float = 0.1

    name = "spectral"
    citation = "Tran, Li and Madry 2018, Spectral Signatures in Backdoor Attacks, arXiv 1811.00636"
    needs_teacher = True
    needs_variations = False
    needs_retrained = False

    def judge(self, evidence: Evidence, progress: Progress) -> Judgement:
        """See `Detector.judge`."""
        assert evidence.teacher is not None
        images, labels = evidence.images, evidence.images.labels.numpy()
        features, what = penultimate(evidence.teacher, images, evidence.device)
        scores, probabilities = np.zeros(len(labels)), np.zeros(len(labels))
        suspects = np.zeros(len(labels), np.bool_)
        judged = []
        for name, number in images.class_to_idx.items():
            here = np.flatnonzero(labels == number)
            projections, share = _projected(features[here].astype(np.float64), evidence.seed)
            groups = split(projections)
            scores[here], probabilities[here] = projections**2, groups.upper
            count = int(_MARGIN * self.epsilon * len(here))
            suspects[here[np.argsort(-scores[here], kind="stable")[:count]]] = True
            why = (
                f"By the paper's rule, which lists the same share of every class, the {count} images that lie furthest "
                f"along one direction of {what} are listed; this direction holds {share:.0%} of the variance."
            )
            judged.append(JudgedClass(name, len(here), count, groups.separation, 0.0, why, len(here) < 2))
        return Judgement(scores, probabilities, suspects, judged)


def _projected(features: NDArray[np.float64], seed: int) -> tuple[NDArray[np.float64], float]:
    """Project features on their top right singular vector.

    Args:
        features: (n, D), the features of one class.
        seed: the seed of the vector with which the power iteration starts.

    Returns:
        (n,) projections, with the longer tail upwards, and the share of the variance that they hold, in [0, 1].
    """
    if len(features) < 2:
        return np.zeros(len(features)), 0.0
    centred = features - features.mean(0)
    direction = np.random.default_rng(seed).normal(size=centred.shape[1])
    for _ in range(_STEPS):
        direction = centred.T @ (centred @ direction)
        length = float(np.linalg.norm(direction))
        if length == 0:
            return np.zeros(len(features)), 0.0
        direction /= length
    projections = centred @ direction
    upwards = 1.0 if (projections**3).sum() >= 0 else -1.0
    return upwards * projections, float((projections**2).sum() / (centred**2).sum())
