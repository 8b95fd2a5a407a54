"""The metrics of a classifier under attack, with intervals, as plain functions on arrays of class indices.

CA, ASR and RA as in BackdoorBench (Wu et al. 2022, arXiv 2206.12654); DER as in Zhu et al. 2023 (arXiv 2304.14017).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

FIRED = 0.8
"""The ASR on the undefended model from which an attack has fired. Defending against an attack that did not fire proves
nothing."""

_Z95 = 1.959963984540054
"""The 97.5 % quantile of the standard normal distribution."""


@dataclass(frozen=True)
class Rate:
    """A share of images, in [0, 1], with its 95 % interval.

    Attributes:
        value: hits / count; NaN if nothing was counted.
        low: the lower end of the Wilson interval.
        high: the upper end of the Wilson interval.
        hits: the number of images that count as yes.
        count: the number of images counted.
    """

    value: float
    low: float
    high: float
    hits: int
    count: int

    def __str__(self) -> str:
        if not self.count:
            return "no images"
        return f"{100 * self.value:.1f} % (95 %: {100 * self.low:.1f}-{100 * self.high:.1f}, {self.count} images)"


def rate(hits: int, count: int) -> Rate:
    """A share with its Wilson score interval (Wilson 1927; two-sided, 95 %).

    Raises:
        ValueError: not 0 <= hits <= count.
    """
    if not 0 <= hits <= count:
        raise ValueError(f"{hits} of {count}")
    if count == 0:
        return Rate(math.nan, 0.0, 1.0, 0, 0)
    share, z2 = hits / count, _Z95**2
    middle = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = _Z95 / (1 + z2 / count) * math.sqrt(share * (1 - share) / count + z2 / (4 * count**2))
    # At 0 and at 1 the interval ends exactly there, which floating point would miss slightly.
    low = 0.0 if hits == 0 else middle - half
    high = 1.0 if hits == count else middle + half
    return Rate(share, low, high, hits, count)


def clean_accuracy(predictions: ArrayLike, labels: ArrayLike) -> Rate:
    """CA: the share of clean test images that are predicted as their class. The arguments are (N,) integers each."""
    guessed, true = _pair(predictions, labels)
    return rate(int((guessed == true).sum()), len(true))


def attack_success_rate(predictions: ArrayLike, labels: ArrayLike, target: ArrayLike) -> Rate:
    """ASR: the share of triggered test images *of other classes* that are predicted as the target class.

    Of predictions on untriggered images, it is the benign landing, which an ASR can hardly be lower than.

    Args:
        predictions: (N,) integers.
        labels: (N,) integers, the true classes.
        target: the class that the attack wants, or (N,) one for each image (all-to-all).
    """
    guessed, true = _pair(predictions, labels)
    wanted = np.broadcast_to(np.asarray(target, dtype=np.int64), true.shape)
    others = true != wanted
    return rate(int((guessed[others] == wanted[others]).sum()), int(others.sum()))


def robust_accuracy(predictions: ArrayLike, labels: ArrayLike, target: ArrayLike) -> Rate:
    """RA: the share of triggered images of other classes that are predicted as their true class. Arguments as for ASR.

    Like ASR, it counts only images of other classes, because for images of the target class a fooled and a right answer
    are the same.
    """
    guessed, true = _pair(predictions, labels)
    others = true != np.asarray(target, dtype=np.int64)
    return rate(int((guessed[others] == true[others]).sum()), int(others.sum()))


def defense_effectiveness(asr_before: float, asr_after: float, ca_before: float, ca_after: float) -> float:
    """DER = [max(0, dASR) - max(0, dCA) + 1] / 2, in [0, 1]; 0.5 means that nothing was gained and nothing lost.

    dASR and dCA are the decreases that the defence caused, before minus after; all values are in [0, 1]. The result is
    NaN if one of them is, since max would treat that as 0.
    """
    if any(map(math.isnan, (asr_before, asr_after, ca_before, ca_after))):
        return math.nan
    return (max(0.0, asr_before - asr_after) - max(0.0, ca_before - ca_after) + 1) / 2


def auroc(positive: ArrayLike, negative: ArrayLike) -> float:
    """Area under the ROC curve: how often a positive has the higher score, where equal scores count half.

    This is U / (n m) of Mann and Whitney 1947 (Hanley and McNeil 1982).

    Args:
        positive: (n,) scores of the items that should be found.
        negative: (m,) scores of the other items.

    Returns:
        In [0, 1]; NaN if there are no items of one kind.
    """
    found, others = np.asarray(positive, np.float64), np.sort(np.asarray(negative, np.float64))
    if not len(found) or not len(others):
        return math.nan
    below, not_above = (np.searchsorted(others, found, side) for side in ("left", "right"))
    return float((below + not_above).sum() / (2 * len(found) * len(others)))


def _pair(predictions: ArrayLike, labels: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    guessed, true = np.asarray(predictions, dtype=np.int64), np.asarray(labels, dtype=np.int64)
    if guessed.shape != true.shape or guessed.ndim != 1:
        raise ValueError(f"expected two arrays of one length, found {guessed.shape} and {true.shape}")
    return guessed, true
