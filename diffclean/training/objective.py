"""The interface of a loss, the supervised loss, and how a network is measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffclean.classifiers.networks import unit_floats
from diffclean.datasets.samples import Samples
from diffclean.training.distributed import World
from diffclean.training.precision import autocast


@dataclass(frozen=True)
class Batch:
    """The input of a network.

    Attributes:
        images: (B, 3, H, W) float32 in [0, 1] on the device, augmented in training.
        labels: (B,) int64 on the device; -1 if there is no label.
        views: (B,) int64 on the CPU, the numbers of these pixels in the data set.
        whole: whether the images are those pixels without augmentation.
    """

    images: Tensor
    labels: Tensor
    views: Tensor
    whole: bool


class Objective(Protocol):
    """A loss, and what counts as a right answer."""

    measure: str
    """The name of the share of right answers: accuracy or agreement."""

    def __call__(self, logits: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """For (B, C) logits of `batch`: the loss, a scalar mean over the batch, and (B,) bool, which are right."""


class Supervised:
    """Cross-entropy with the labels.

    Args:
        label_smoothing: the share of the target that is spread over all classes.
    """

    measure = "accuracy"

    def __init__(self, label_smoothing: float = 0.0) -> None:
        self.label_smoothing = label_smoothing

    def __call__(self, logits: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """The loss, and which answers are right."""
        loss = F.cross_entropy(logits, batch.labels, label_smoothing=self.label_smoothing)
        return loss, logits.argmax(1) == batch.labels


@dataclass(frozen=True)
class Measured:
    """The performance of a network on images that it is not trained on.

    Attributes:
        loss: the mean loss.
        right: the share of right answers.
        count: the number of images.
    """

    loss: float
    right: float
    count: int


@torch.no_grad()
def measured(
    model: nn.Module,
    samples: Samples,
    images: Tensor,
    objective: Objective,
    world: World,
    precision: str,
    batch_size: int = 512,
) -> Measured:
    """Measure a network on the first variation of each image without augmentation. All processes must call this.

    Args:
        model: the network, which is left in evaluation mode.
        samples: the data set.
        images: (N,) the images to use; every process measures its part, each image once.
        objective: the loss to measure.
        world: the processes.
        precision: as for `autocast`.
        batch_size: the number of images in a forward pass.
    """
    model.eval()
    world.share_buffers(model)
    sums = torch.zeros(3, dtype=torch.float64, device=world.device)
    parts = [part for part in world.part(images).split(batch_size) if len(part)]
    views = [samples.starts[part] for part in parts]
    for part, shown, pixels in zip(parts, views, samples.pixels.batches(views), strict=True):
        labels = samples.labels[part].to(world.device)
        batch = Batch(unit_floats(pixels.to(world.device)), labels, shown, whole=True)
        with autocast(world.device, precision):
            loss, right = objective(model(batch.images), batch)
        sums += torch.stack(
            [loss.double() * len(part), right.sum().double(), torch.tensor(len(part), device=world.device).double()]
        )
    loss_sum, right_sum, count = world.sum(sums).tolist()
    return Measured(loss_sum / count, right_sum / count, int(count))
