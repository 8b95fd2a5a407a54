"""Find labels that do not fit, with classifiers that could not have learned the trigger.

This detector looks for dirty labels. The images are divided into K folds. For each fold, a small network learns from
the other folds and then estimates how likely the label of each image in the fold is. The network sees the images
through a view that hides some kinds of trigger (`views`). If the view hides the trigger, the network must judge by what
the image shows, and a label that does not fit stands out. Within each class, the doubts about clean images form one
group. If the doubts form two groups (`mixture.split`), the upper group is listed. Listed images are left out of the
training in the next round, so that each round learns from fewer wrong labels.

Judging labels out of fold was proposed by Brodley and Friedl 1999, "Identifying Mislabeled Training Data"
(cross-validated filters) and Northcutt et al. 2021, "Confident Learning", arXiv 1911.00068. Views that hide the trigger
are our own addition. The doubt about a label is the negative logit of its probability, which is close to Gaussian, as
Carlini et al. 2022, arXiv 2112.03570 (section V), found for the losses of single examples.

The detector cannot find clean-label poison, and it needs a view that hides the trigger and still shows enough of the
image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffclean.data.suspects import JudgedClass
from diffclean.datasets.bits import Purpose, random_bits
from diffclean.datasets.pixels import Chosen
from diffclean.detection.base import Evidence, Judgement
from diffclean.detection.mixture import Split, split
from diffclean.detection.network import ask, learn_labels
from diffclean.detection.viewed import Viewed, bench_of, sampled
from diffclean.detection.views import VIEWS
from diffclean.errors import UsageError
from diffclean.progress import Progress

Doubts = NDArray[np.float64]
Labels = NDArray[np.int64]

FOLDS = 3
ROUNDS = 3
"""The largest number of rounds. The rounds end earlier if one of them changes the list by less than `_SETTLED`."""
_SETTLED = 0.02
SEPARATED = 0.1
"""The separation from which the doubts of a class form two groups. It is the limit of `variation_drop` and was not
calibrated on benign runs."""
_CHANCE = 30
"""With n images, a single group can reach a separation of this number over n by chance, as in `variation_drop`."""
FEWEST = 30
"""A class with fewer images than this is not judged."""
SUSPECT = 0.5
"""An image is a suspect if it belongs to the upper group with more than this probability."""
_VIEWS = ("edges", "soft-edges", "coarse-4", "centre")
_VISITS = 40_000
"""The number of images shown to each network: enough to learn the classes, but too few to memorise the images."""
_EPOCHS = (2, 200)
_WIDTH = 16


@dataclass(frozen=True)
class OutOfFold:
    """Doubts about labels, estimated out of fold through views that hide triggers.

    Attributes:
        views: names of views, see `views.VIEWS`.
        rounds: the largest number of rounds.
        visits: the number of images shown to each network; each image is shown about equally often.
    """

    views: Sequence[str] = _VIEWS
    rounds: int = ROUNDS
    visits: int = _VISITS

    name = "out-of-fold"
    citation = "own, 2026; out-of-fold labels after Brodley and Friedl 1999 and Northcutt et al. 2021, arXiv 1911.00068"
    needs_teacher = False
    needs_variations = False
    needs_retrained = False

    def judge(self, evidence: Evidence, progress: Progress) -> Judgement:
        """See `Detector.judge`."""
        labels = evidence.images.labels.numpy()
        classes = list(evidence.images.class_to_idx)
        if len(np.unique(labels[labels >= 0])) < 2:
            raise UsageError(
                "The data set has images of one class only.",
                "This detector compares classes: name a data set with images of two or more.",
            )
        found = Judgement(np.zeros(len(labels)), np.zeros(len(labels)), np.zeros(len(labels), np.bool_), [])
        progress.begin("Doubting labels", None)
        try:
            for number in range(self.rounds):
                rows = [self._doubts(evidence, view, found.suspects, number, progress) for view in self.views]
                before, found = found.suspects, judged_doubts(np.stack(rows), labels, classes, self.views)
                changed = int((before != found.suspects).sum())
                if changed <= _SETTLED * int(found.suspects.sum()):
                    break
        finally:
            progress.end()
        return found

    def _doubts(
        self, evidence: Evidence, view: str, listed: NDArray[np.bool_], round_: int, progress: Progress
    ) -> Doubts:
        """(N,) how little each label fits, by networks that learned neither from the image nor from listed ones."""
        images, labels = evidence.images, evidence.images.labels
        viewed = Viewed(images.pixels, VIEWS[view])
        sample = sampled(evidence)
        bench = bench_of(evidence, viewed, sample, progress)
        folds = (random_bits(images.ids, evidence.seed, round_, Purpose.HOLD_OUT) % np.uint64(FOLDS)).astype(np.int64)
        doubts = np.zeros(len(labels))
        for fold in range(FOLDS):
            outside = torch.from_numpy(~listed & (folds != fold))
            asked = torch.from_numpy(np.flatnonzero((folds == fold) & (labels.numpy() >= 0)))
            learned = torch.where(outside[sample])[0]
            if not len(learned) or not len(asked):
                continue
            epochs = int(np.clip(round(self.visits / len(learned)), *_EPOCHS))
            seed = FOLDS * round_ + fold
            network = learn_labels(bench, labels[sample], learned, len(images.class_to_idx), epochs, seed, _WIDTH)
            doubts[asked.numpy()] = _doubt(ask(bench, network, Chosen(viewed, asked)), labels[asked])
        return doubts


def judged_doubts(doubts: Doubts, labels: Labels, classes: Sequence[str], views: Sequence[str]) -> Judgement:
    """Divide the images of each class if the views together doubt some of them.

    Within a class, the doubts of a view are standardised by its lower group if there are two groups, and by all images
    otherwise. The views in which there are two groups are averaged, since only they hide the trigger. If there are two
    groups in no view, all views are averaged.

    Args:
        doubts: (V, N) float64, one row per view.
        labels: (N,) int64; images with a label of -1 are not judged.
        classes: the name of each label.
        views: the names of the V views.
    """
    scores, probabilities = np.zeros(len(labels)), np.zeros(len(labels))
    suspects = np.zeros(len(labels), np.bool_)
    judged = []
    for number, name in enumerate(classes):
        here = np.flatnonzero(labels == number)
        limit = SEPARATED + _CHANCE / max(1, len(here))
        splits = [split(row[here]) for row in doubts]
        apart = [len(here) >= FEWEST and one.separation > limit for one in splits]
        seeing = [one for one in range(len(views)) if apart[one] or not any(apart)]
        standard = [_standardised(doubts[one][here], splits[one], apart[one]) for one in seeing]
        scores[here] = np.mean(standard, axis=0)
        groups = split(scores[here])
        if any(apart):
            probabilities[here] = groups.upper
            suspects[here] = groups.upper > SUSPECT
        separation = max(one.separation for one in splits)
        count = int(suspects[here].sum())
        why = _why(count, len(here), [views[one] for one in seeing] if any(apart) else [])
        judged.append(JudgedClass(name, len(here), count, separation, limit, why, len(here) < FEWEST))
    return Judgement(scores, probabilities, suspects, judged)


def _standardised(doubts: Doubts, groups: Split, apart: bool) -> Doubts:
    """Doubts above the mean of the lower group, in its standard deviations; of all images if there is one group."""
    weights = 1 - groups.upper if apart else np.ones(len(doubts))
    total = max(float(weights.sum()), 1e-9)
    mean = float(weights @ doubts) / total
    deviation = np.sqrt(float(weights @ (doubts - mean) ** 2) / total)
    return (doubts - mean) / max(float(deviation), 1e-6)


def _why(listed: int, images: int, views: Sequence[str]) -> str:
    if images < FEWEST:
        return f"It has {images} images; at least {FEWEST} are needed to tell two groups from one."
    if not views:
        return "In every view, the doubts about its labels form one group."
    through = ", ".join(views)
    return f"Networks that look through {through} and did not learn these images doubt {listed} of the {images} labels."


def _doubt(logits: Tensor, labels: Tensor) -> Doubts:
    """(B,) the logarithm of (1 - p) / p, where p is the probability of the label; the logits are (B, C) float32."""
    rows = logits.double()
    own = rows.gather(1, labels[:, None])[:, 0]
    others = rows.scatter(1, labels[:, None], -float("inf")).logsumexp(1)
    doubt: Doubts = (others - own).numpy()
    return doubt
