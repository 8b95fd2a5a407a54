"""Find what an earlier list missed, by comparing two teachers: one trained on everything, one without the list.

The first teacher has learned the trigger. If so much of the poison is on the list that the second teacher has not
learned it, then an image with the trigger that is not on the list shows the difference: the first teacher knows its
label from the trigger, and the second one does not. The score of an image is therefore the logit of its label in the
first teacher less that in the second one. Both are taken less the mean over all classes. The differences of clean
images with the same label form one group, since both teachers learned from them. If there are two groups
(`mixture.split`), the upper one holds images that the list missed.

The detector is blind where the second teacher still has the backdoor, because too many poisoned images were missed.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from diffclean.detection.base import Evidence, Judgement
from diffclean.detection.variation_drop import centred_logits, judged_drops
from diffclean.errors import UsageError
from diffclean.progress import Progress


class LogitDifference:
    """The difference of two teachers' logits of the label, divided into two groups for each label."""

    name = "logit-difference"
    citation = (
        "own, 2026; for a group of images what Feldman and Zhang 2020, arXiv 2008.03703, measure for one image: what a "
        "network knows of it with and without it in training"
    )
    needs_teacher = True
    needs_variations = False
    needs_retrained = True

    def judge(self, evidence: Evidence, progress: Progress) -> Judgement:
        """See `Detector.judge`. Images in `Evidence.listed` get a score and are not judged."""
        teacher, retrained, images = evidence.teacher, evidence.retrained, evidence.images
        assert teacher is not None
        if retrained is None:
            raise UsageError(
                f"The detector {self.name} needs a teacher that was trained without an earlier list (`retrained` "
                "MODEL).",
                "Train one: diffclean train DATA --without suspects.json -o teacher-anew.pt",
            )
        before = centred_logits(teacher, images, evidence.device)
        after = centred_logits(retrained, images, evidence.device)
        names = sorted(teacher.class_to_idx, key=teacher.class_to_idx.__getitem__)
        after = after[:, [retrained.class_to_idx[name] for name in names]]  # in the order of the teacher's classes
        given = images.labels.numpy()
        labels = np.where(given >= 0, given, before.argmax(1))  # without a label, what the first teacher says
        scores = (before - after)[np.arange(len(labels)), labels]
        rest = np.flatnonzero([key not in evidence.listed for key in images.keys])
        found = judged_drops(scores[rest], labels[rest], names)
        probabilities, suspects = np.zeros(len(labels)), np.zeros(len(labels), np.bool_)
        probabilities[rest], suspects[rest] = found.probabilities, found.suspects
        counts = np.bincount(labels, minlength=len(names))
        classes = [replace(each, images=int(count)) for each, count in zip(found.classes, counts, strict=True)]
        return Judgement(scores, probabilities, suspects, classes)
