"""Images as they look through a view, in the form in which `network` trains on images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from diffclean.datasets.pixels import ImageSet, Statistics
from diffclean.detection.base import Evidence
from diffclean.detection.network import Workbench
from diffclean.detection.views import View
from diffclean.progress import Progress

SAMPLE = 50_000
"""Images that networks learn from; more are only judged, so that the memory does not grow with the data."""
_STEPS = 32
"""Levels of a byte for a view's one; values beyond four are cut off."""
_MIDDLE = 128
_BATCH = 1024


class Viewed:
    """Images seen through a view: `ImageSet` whose bytes stand for the view's values.

    Args:
        pixels: the images as they are.
        view: one of `views.VIEWS`.
    """

    def __init__(self, pixels: ImageSet, view: View) -> None:
        self.pixels, self.view = pixels, view
        height, width = view(torch.zeros(1, 3, *pixels.shape, dtype=torch.uint8)).shape[2:]
        self.shape = (int(height), int(width))

    def __len__(self) -> int:
        return len(self.pixels)

    def batches(self, chosen: Iterable[Tensor]) -> Iterator[Tensor]:
        """For each (B,) int64 of numbers, (B, 3, h, w) uint8; a view of one channel is repeated."""
        for images in self.pixels.batches(chosen):
            values = self.view(images) * _STEPS + _MIDDLE
            yield values.round().clamp(0, 255).to(torch.uint8).expand(-1, 3, -1, -1)

    def statistics(self) -> Statistics:
        """The mean and deviation with which a network sees the view's own values."""
        return (_MIDDLE / 255,) * 3, (_STEPS / 255,) * 3


def sampled(evidence: Evidence) -> Tensor:
    """(M,) int64, numbers of at most `SAMPLE` images that have a label, in their order."""
    labelled = torch.where(evidence.images.labels >= 0)[0]
    if len(labelled) <= SAMPLE:
        return labelled
    rng = np.random.default_rng(evidence.seed)
    return labelled[torch.from_numpy(np.sort(rng.permutation(len(labelled))[:SAMPLE]))]


def bench_of(evidence: Evidence, pixels: ImageSet, sample: Tensor, progress: Progress) -> Workbench:
    """A workbench with some of the images.

    Args:
        evidence: tells the device and the seed.
        pixels: all images, as they are or through a view.
        sample: (M,) int64, the numbers of those that are held.
        progress: told of each image that a network is trained on.
    """
    held = torch.cat(list(pixels.batches(sample.split(_BATCH))))
    return Workbench(held, pixels.statistics(), evidence.device, evidence.seed, progress, evidence.stop)
