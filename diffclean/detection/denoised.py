"""Susceptibility to denoising, after UltraClean (Zhao and Lao 2023, arXiv 2312.10657).

This is the published method that is closest to `variation_drop`. To a network, a trigger is noise that grows from layer
to layer. The paper makes two variants of each image with off-the-shelf denoisers. The susceptibility of an image is how
far the variants move the output of the network away from its output for the original. The most susceptible images are
poisoned. The method needs neither a diffusion model nor variations.

Taken from the paper: two denoised variants, the teacher as the judge, and susceptibility as the score. Our own choices:
a median filter and a Gaussian blur as the denoisers, the Euclidean distance between centred logits as the measure
(averaged over both variants), and the list. The paper only ranks the images. Here the scores of each label are divided
into two groups as in `variation_drop`, and images are listed only where there are two groups.
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
    needs_retrained = False

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
    """(N,) float64, the mean distance between the centred logits of an image and those of its variants."""
    parts = []
    for pixels in images.pixels.batches(torch.arange(len(images.keys)).split(_BATCH)):
        if evidence.stop is not None and evidence.stop.is_set():
            raise Interrupted(
                "Stopped while images were denoised.", "To start from the beginning, type the same command again."
            )
        original = unit_floats(pixels.to(evidence.device))
        before = _centred(teacher, original)
        moved = [(_centred(teacher, variant) - before).norm(dim=1) for variant in denoised(original)]
        parts.append(torch.stack(moved).mean(0).double().cpu())
        progress.advance(len(pixels))
    return torch.cat(parts).numpy()


def denoised(images: Tensor) -> tuple[Tensor, Tensor]:
    """Make two variants with less noise: a median over 3x3 px and a Gaussian blur of 1 px.

    Args:
        images: (B, 3, H, W) float in [0, 1].

    Returns:
        Two tensors of the same shape and range. Outside the image, the pixels at its rim are repeated.
    """
    windows = F.pad(images, (1, 1, 1, 1), mode="replicate").unfold(2, 3, 1).unfold(3, 3, 1)
    return windows.flatten(4).median(4).values, blurred(images, _SIGMA)


def _centred(teacher: LoadedClassifier, images: Tensor) -> Tensor:
    """(B, C) logits less their mean, because a constant that is added to all logits carries no information."""
    logits = teacher.logits(images)
    return logits - logits.mean(1, keepdim=True)


def _why(listed: int, images: int) -> str:
    if images < FEWEST:
        return f"It has {images} images; at least {FEWEST} are needed to tell two groups from one."
    if not listed:
        return "Denoising moves the teacher's answers to its images by about the same."
    return f"Denoising moves the teacher's answers to {listed} of the {images} images further than to the others."
