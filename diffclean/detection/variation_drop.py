"""What variation takes from the teacher's answer.

A backdoor is a short cut: on an image with a trigger a poisoned teacher is surer of the target class than the image
itself makes it, and variation takes the trigger away. So for each image its drop is looked at: the teacher's logit of
its answer, less that logit's mean over the image's variations (both less the mean over all classes, since a constant
added to all logits says nothing). The drops of clean images with one answer make one group. Where they make two
(`mixture.split`), the upper one holds the poisoned images. No label is needed and no clean data.

It was tuned on CIFAR-10, and finds nothing where the trigger survives variation or where variation leaves too little of
the label (docs/detection.md).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from diffclean.data.suspects import JudgedClass
from diffclean.detection.base import Evidence, Judgement
from diffclean.detection.mixture import split
from diffclean.progress import Progress

if TYPE_CHECKING:
    import torch

    from diffclean.classifiers.loading import LoadedClassifier
    from diffclean.datasets.samples import Samples

log = logging.getLogger(__name__)

SEPARATED = 0.1
"""From here on there are two groups; docs/evidence.md shows how clean and poisoned classes lie to either side."""
_CHANCE = 30
"""Over n images one group alone can look separated by so much over n."""
_ENOUGH = 4
"""Variations of an image whose mean is steady."""
FEWEST = 30
"""Images of one answer below which nothing is said of them."""
SUSPECT = 0.1
"""Probability of the upper group that makes a suspect. Low: a poisoned image kept costs more than a clean one lost."""
_BATCH = 512


class VariationDrop:
    """The drop of the teacher's answer under variation, split into two groups within each answer."""

    name = "variation-drop"
    citation = "own, 2026; close to Sun et al. 2023, UltraClean, arXiv 2312.10657, which compares denoised images"
    needs_teacher = True
    needs_variations = True

    def judge(self, evidence: Evidence, progress: Progress) -> Judgement:
        """See `Detector.judge`."""
        teacher, varied = evidence.teacher, evidence.variations
        assert teacher is not None
        assert varied is not None
        if varied.most_variations < _ENOUGH:
            log.warning(
                "There are %d variations of an image: clean images may look suspect, and poisoned ones not. Better: "
                "diffclean variate DATA --strength 0.4 --variations %d",
                varied.most_variations,
                _ENOUGH,
            )
        before = centred_logits(teacher, evidence.images, evidence.device)
        after = _means(centred_logits(teacher, varied, evidence.device), varied)
        answers = before.argmax(1)
        drops = (before - after)[np.arange(len(before)), answers]
        return judged_drops(drops, answers, list(teacher.class_to_idx))


def judged_drops(drops: NDArray[np.float64], answers: NDArray[np.int64], classes: list[str]) -> Judgement:
    """Part the images of each answer where they fall into two groups.

    Args:
        drops: (N,) float64, see the module.
        answers: (N,) int64, the teacher's answer to each original.
        classes: the name of each answer.
    """
    probabilities = np.zeros(len(drops))
    suspects = np.zeros(len(drops), np.bool_)
    judged = []
    for number, name in enumerate(classes):
        here = np.flatnonzero(answers == number)
        groups = split(drops[here])
        limit = SEPARATED + _CHANCE / max(1, len(here))
        too_few = len(here) < FEWEST
        if not too_few and groups.separation > limit:
            probabilities[here] = groups.upper
            suspects[here] = groups.upper > SUSPECT
        count = int(suspects[here].sum())
        judged.append(JudgedClass(name, len(here), count, groups.separation, limit, too_few=too_few))
    return Judgement(drops, probabilities, suspects, judged)


def centred_logits(classifier: LoadedClassifier, samples: Samples, device: torch.device) -> NDArray[np.float64]:
    """(M, C) float64 logits of every picture, less their mean over the classes."""
    import torch

    from diffclean.classifiers.networks import unit_floats

    parts = torch.arange(len(samples.pixels)).split(_BATCH)
    answers = [classifier.logits(unit_floats(p.to(device))).cpu() for p in samples.pixels.batches(parts)]
    logits = torch.cat(answers).double()
    centred: NDArray[np.float64] = (logits - logits.mean(1, keepdim=True)).numpy()
    return centred


def _means(logits: NDArray[np.float64], samples: Samples) -> NDArray[np.float64]:
    """(N, C) float64: of each image, the mean over its variations."""
    starts = samples.starts.numpy()
    sums: NDArray[np.float64] = np.add.reduceat(logits, starts[:-1], axis=0)
    return sums / np.diff(starts)[:, None]
