"""Isolation by loss (Li et al. 2021, arXiv 2110.11571): a published method, included for comparison.

This is the isolation stage of anti-backdoor learning. A network learns a trigger sooner than it learns what the images
show. Local gradient ascent (equation 3 of the paper) keeps the network from learning more than the trigger: above gamma
a loss counts as it is, and below gamma it counts with its sign reversed, so that gradient descent holds it at gamma.
Here the loss is the mean over a batch, as in flooding (Ishida et al. 2020, arXiv 2002.08709); with a loss for each
image, poisoned images would be held at gamma too. The 1 % of all images with the lowest losses are isolated, which is
the share that the paper uses.

The paper isolates images in clean data too. It deliberately isolates far fewer images than may be poisoned: enough to
unlearn the backdoor, but not enough to leave the poison out. The network is small and is trained with AdamW, like those
of our other detectors. The probability is our own addition: it says how clearly the losses of all images fall into two
groups (`mixture.split`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from diffclean.data.suspects import JudgedClass
from diffclean.detection.base import Evidence, Judgement
from diffclean.detection.mixture import split
from diffclean.detection.network import BATCH, SmallNet, Workbench, ask, fit
from diffclean.detection.viewed import bench_of, sampled
from diffclean.errors import UsageError
from diffclean.progress import Progress

_EPOCHS = 20
"""As in the paper, where the isolation stage takes 20 of 100 epochs."""
_VISITS = 1_000_000
"""The largest number of images shown to the network in all: 20 epochs of `viewed.SAMPLE` images."""
_WIDTH = 16


@dataclass(frozen=True)
class LossIsolation:
    """The images with the lowest losses after the first epochs.

    Attributes:
        share: the share of all images that is isolated.
        gamma: the loss, in nats, at which local gradient ascent holds the losses.
        epochs: how many epochs the network learns.
    """

    share: float = 0.01
    gamma: float = 0.5
    epochs: int = _EPOCHS

    name = "loss-isolation"
    citation = "Li et al. 2021, Anti-Backdoor Learning, arXiv 2110.11571 (its isolation stage)"
    needs_teacher = False
    needs_variations = False
    needs_retrained = False

    def judge(self, evidence: Evidence, progress: Progress) -> Judgement:
        """See `Detector.judge`."""
        images = evidence.images
        labelled = torch.where(images.labels >= 0)[0]
        if len(torch.unique(images.labels[labelled])) < 2:
            raise UsageError(
                "The data set has images of one class only.",
                "This detector compares classes: name a data set with images of two or more.",
            )
        sample = sampled(evidence)
        progress.begin("Learning labels", None)
        try:
            bench = bench_of(evidence, images.pixels, sample, progress)
            network = self._learned(bench, images.labels[sample], len(images.class_to_idx))
        finally:
            progress.end()
        answers = ask(bench, network, images.chosen(labelled).pixels)
        losses = np.full(len(images.keys), np.inf)
        losses[labelled.numpy()] = F.cross_entropy(answers, images.labels[labelled], reduction="none").double().numpy()
        return self._judgement(losses, images.labels.numpy(), list(images.class_to_idx))

    def _learned(self, bench: Workbench, labels: Tensor, classes: int) -> SmallNet:
        network = bench.network(classes, 0, _WIDTH)
        batch = min(BATCH, len(labels))

        def choose(_: int, rng: np.random.Generator) -> Tensor:
            return torch.from_numpy(rng.choice(len(labels), batch, replace=False))

        def loss_of(logits: Tensor, numbers: Tensor) -> Tensor:
            loss = F.cross_entropy(logits, labels[numbers].to(logits.device))
            return (loss - self.gamma).sign() * loss  # equation 3

        visits = min(self.epochs * len(labels), _VISITS)
        fit(bench, network, max(1, visits // batch), choose, loss_of, 0)
        return network

    def _judgement(self, losses: NDArray[np.float64], labels: NDArray[np.int64], classes: list[str]) -> Judgement:
        """List the images with the lowest losses. An image without a label has an infinite loss and is not listed."""
        known = np.isfinite(losses)
        suspects = np.zeros(len(losses), np.bool_)
        suspects[np.argsort(losses, kind="stable")[: max(1, int(self.share * known.sum()))]] = True
        scores, probabilities = np.full(len(losses), -losses[known].max()), np.zeros(len(losses))
        scores[known] = -losses[known]
        groups = split(-losses[known])
        probabilities[known] = groups.upper
        total = int(suspects.sum())
        judged = []
        for number, name in enumerate(classes):
            own = labels == number
            count = int(suspects[own].sum())
            why = f"The method always lists the {total} images with the lowest losses; {count} of them have this label."
            judged.append(JudgedClass(name, int(own.sum()), count, count / total, 0.0, why))
        return Judgement(scores, probabilities, suspects, judged)
