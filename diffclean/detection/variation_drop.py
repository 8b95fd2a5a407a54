"""Find the images on which variation weakens the teacher's answer.

A backdoor is a shortcut: on an image with a trigger, a poisoned teacher is surer of the target class than the image
itself justifies, and variation removes the trigger. The detector therefore computes a drop for each image: the
teacher's logit of its answer to the image, less the mean of that logit over the variations of the image. Both are taken
less the mean over all classes, because a constant that is added to all logits carries no information. The drops of
clean images with the same answer form one group. If the drops form two groups (`mixture.split`), the upper group holds
the poisoned images. The detector needs neither labels nor clean data.

It was tuned on CIFAR-10. It finds nothing if the trigger survives variation or if variation leaves too little of the
label (docs/detection.md).
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
"""The separation from which there are two groups. docs/evidence.md shows where clean and poisoned classes lie."""
_CHANCE = 30
"""With n images, a single group can reach a separation of this number over n by chance."""
_ENOUGH = 4
"""With this many variations of an image, their mean is stable."""
FEWEST = 30
"""An answer that the teacher gives to fewer images than this is not judged."""
SUSPECT = 0.1
"""An image is a suspect if it belongs to the upper group with more than this probability. The value is low because
keeping a poisoned image costs more than losing a clean one."""
_BATCH = 512


class VariationDrop:
    """The drop of the teacher's answer under variation, divided into two groups for each answer."""

    name = "variation-drop"
    citation = "own, 2026; close to Zhao and Lao 2023, UltraClean, arXiv 2312.10657, which compares denoised images"
    needs_teacher = True
    needs_variations = True
    needs_retrained = False

    def judge(self, evidence: Evidence, progress: Progress) -> Judgement:
        """See `Detector.judge`."""
        teacher, varied = evidence.teacher, evidence.variations
        assert teacher is not None
        assert varied is not None
        if varied.most_variations < _ENOUGH:
            log.warning(
                "There are only %d variations of an image, so clean images may be listed and poisoned images missed. "
                "For a more reliable result, type: diffclean variate DATA --strength 0.4 --variations %d",
                varied.most_variations,
                _ENOUGH,
            )
        before = centred_logits(teacher, evidence.images, evidence.device)
        after = _means(centred_logits(teacher, varied, evidence.device), varied)
        answers = before.argmax(1)
        drops = (before - after)[np.arange(len(before)), answers]
        return judged_drops(drops, answers, list(teacher.class_to_idx))


def judged_drops(drops: NDArray[np.float64], answers: NDArray[np.int64], classes: list[str]) -> Judgement:
    """Divide the images of each answer if their drops fall into two groups.

    Args:
        drops: (N,) float64, the drop of each image as the docstring of this module defines it.
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
    """(M, C) float64 logits of every image, less their mean over the classes."""
    import torch

    from diffclean.classifiers.networks import unit_floats

    parts = torch.arange(len(samples.pixels)).split(_BATCH)
    answers = [classifier.logits(unit_floats(p.to(device))).cpu() for p in samples.pixels.batches(parts)]
    logits = torch.cat(answers).double()
    centred: NDArray[np.float64] = (logits - logits.mean(1, keepdim=True)).numpy()
    return centred


def _means(logits: NDArray[np.float64], samples: Samples) -> NDArray[np.float64]:
    """(N, C) float64, for each image the mean over its variations."""
    starts = samples.starts.numpy()
    sums: NDArray[np.float64] = np.add.reduceat(logits, starts[:-1], axis=0)
    return sums / np.diff(starts)[:, None]
