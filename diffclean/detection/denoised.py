"""Susceptibility to denoising, after UltraClean (Zhao and Lao 2023, arXiv 2312.10657): the nearest published relative.

To a network, a trigger is noise that grows from layer to layer. The paper makes two variants of each image by
off-the-shelf denoising, and takes as its susceptibility how far they move the network from what it made of the
original; the most susceptible images are poisoned. No diffusion model is needed, and variations are not.

Taken from the paper: two denoised variants, the teacher as the judge, susceptibility as the score. Ours: a median and
a Gaussian as the denoisers, the Euclidean distance of centred logits as the measure (a mean over both variants), and
the list. The paper ranks; here the scores of each label are parted into two groups as in `variation_drop`, and an image
is listed where there are two.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from diffclean.classifiers.loading import LoadedClassifier
from diffclean.classifiers.networks import unit_floats
from diffclean.datasets.samples import Samples
from diffclean.detection.base import Evidence, Judgement
from diffclean.detection.variation_drop import FEWEST, judged_drops
from diffclean.detection.views import blurred
from diffclean.errors import Interrupted
from diffclean.progress import Progress

_SIGMA = 1.0
_BATCH = 512


class Denoised:
    """How far denoising an image moves the teacher's answer."""

    name = "denoised"
    citation = "after Zhao and Lao 2023, UltraClean, arXiv 2312.10657"
    needs_teacher = True
    needs_variations = False

    def judge(self, evidence: Evidence, progress: Progress) -> Judgement:
        """See `Detector.judge`."""
        assert evidence.teacher is not None
        images = evidence.images
        progress.begin("Denoising", len(images.keys))
        try:
            scores = _susceptibilities(evidence.teacher, images, evidence, progress)
        finally:
            progress.end()
        found = judged_drops(scores, images.labels.numpy(), list(images.class_to_idx))
        return replace(found, classes=[replace(one, why=_why(one.suspects, one.images)) for one in found.classes])


def _susceptibilities(
    teacher: LoadedClassifier, images: Samples, evidence: Evidence, progress: Progress
) -> NDArray[np.float64]:
    """(N,) float64, the mean distance between the centred logits of an image and of its variants."""
    parts = []
    for pixels in images.pixels.batches(torch.arange(len(images.keys)).split(_BATCH)):
        if evidence.stop is not None and evidence.stop.is_set():
            raise Interrupted("Stopped while images were denoised.", "The same command starts from the beginning.")
        original = unit_floats(pixels.to(evidence.device))
        before = _centred(teacher, original)
        moved = [(_centred(teacher, variant) - before).norm(dim=1) for variant in denoised(original)]
        parts.append(torch.stack(moved).mean(0).double().cpu())
        progress.advance(len(pixels))
    return torch.cat(parts).numpy()


def denoised(images: Tensor) -> tuple[Tensor, Tensor]:
    """Two variants with less noise: the median of 3x3 px, and a Gaussian blur by 1 px.

    Args:
        images: (B, 3, H, W) float in [0, 1].

    Returns:
        Two of the same shape and range; beyond the rim its pixels are repeated.
    """
    windows = F.pad(images, (1, 1, 1, 1), mode="replicate").unfold(2, 3, 1).unfold(3, 3, 1)
    return windows.flatten(4).median(4).values, blurred(images, _SIGMA)


def _centred(teacher: LoadedClassifier, images: Tensor) -> Tensor:
    """(B, C) logits less their mean: a constant added to all of them says nothing."""
    logits = teacher.logits(images)
    return logits - logits.mean(1, keepdim=True)


def _why(listed: int, images: int) -> str:
    if images < FEWEST:
        return f"It has {images} images; at least {FEWEST} are needed to tell two groups from one."
    if not listed:
        return "Denoising moves the teacher's answers to its images by about the same."
    return f"Denoising moves the teacher's answers to {listed} of the {images} images further than to the others."
