"""Images seen through a view, in the form that `network` trains on."""

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
"""The largest number of images that networks learn from. Further images are only judged, so that the memory does not
grow with the data set."""
_STEPS = 32
"""One unit of a view's values in levels of a byte. Values beyond four units are clipped."""
_MIDDLE = 128
_BATCH = 1024


class Viewed:
    """Images seen through a view: an `ImageSet` whose bytes encode the values of the view.

    Args:
        pixels: the images without a view.
        view: one of `views.VIEWS`.
    """

    def __init__(self, pixels: ImageSet, view: View) -> None:
        self.pixels, self.view = pixels, view
        height, width = view(torch.zeros(1, 3, *pixels.shape, dtype=torch.uint8)).shape[2:]
        self.shape = (int(height), int(width))

    def __len__(self) -> int:
        return len(self.pixels)

    def batches(self, chosen: Iterable[Tensor]) -> Iterator[Tensor]:
        """For each (B,) int64 of numbers, (B, 3, h, w) uint8; a view with one channel is repeated three times."""
        for images in self.pixels.batches(chosen):
            values = self.view(images) * _STEPS + _MIDDLE
            yield values.round().clamp(0, 255).to(torch.uint8).expand(-1, 3, -1, -1)

    def statistics(self) -> Statistics:
        """The mean and deviation with which a network recovers the values of the view."""
        return (_MIDDLE / 255,) * 3, (_STEPS / 255,) * 3


def sampled(evidence: Evidence) -> Tensor:
    """(M,) int64, the numbers of at most `SAMPLE` images that have a label, in ascending order."""
    labelled = torch.where(evidence.images.labels >= 0)[0]
    if len(labelled) <= SAMPLE:
        return labelled
    rng = np.random.default_rng(evidence.seed)
    return labelled[torch.from_numpy(np.sort(rng.permutation(len(labelled))[:SAMPLE]))]


def bench_of(evidence: Evidence, pixels: ImageSet, sample: Tensor, progress: Progress) -> Workbench:
    """Make a workbench with some of the images.

    Args:
        evidence: gives the device and the seed.
        pixels: all images, as they are or through a view.
        sample: (M,) int64, the numbers of the images to hold in memory.
        progress: is advanced for each image that a network is trained on.
    """
    held = torch.cat(list(pixels.batches(sample.split(_BATCH))))
    return Workbench(held, pixels.statistics(), evidence.device, evidence.seed, progress, evidence.stop)
