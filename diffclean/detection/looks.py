"""Which images look as if they shared something that their label does not explain.

One small network learns the labels as they are, and every image's loss is noted early and late. A trigger is
a short cut, and short cuts show in one of two ways:

- *low*: once the network has learned the trigger, poisoned images have the lowest losses of all (anti-backdoor
  learning: Li et al. 2021, arXiv 2110.11571), so one label has far more than its share among the surest images;
- *high*: before that, an image with a dirty label looks like a mistake, so one label has far more than its share among
  the images that the network contradicts most.

A label is a candidate by its share. What the images share is not yet asked: `spread` does that.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from diffclean.detection.network import SmallNet, Workbench, ask, learn_labels

_VISITS = 60_000
"""Images shown to the network in all: what CIFAR-10 triggers took to be learned, and then some."""
_EPOCHS = (8, 24)
_TAIL = 0.02
"""Share of all images whose labels are counted at either end."""
_LOW_SEEDS, _HIGH_SEEDS = 0.04, 0.06
"""Share of a label's images that are taken for seeds."""
_FEWEST_SEEDS = 8
_STICKS_OUT = 1.5
"""Times its even share that a label must have at one end to be a candidate."""
_SMALLEST_SHARE = 0.05
FEWEST = 2 * _FEWEST_SEEDS
"""Images of one label below which nothing is said of it."""


class Kind(StrEnum):
    """At which end of the losses the seeds lie."""

    LOW = "low"
    HIGH = "high"


@dataclass(frozen=True)
class Look:
    """What one training showed.

    Attributes:
        network: at the end of the training.
        early: (M,) float32, the loss of each image, mean over a few epochs after the first.
        late: (M,) float32, the same over the last two.
        chosen: (M,) int64, which images it learned from.
    """

    network: SmallNet
    early: NDArray[np.float32]
    late: NDArray[np.float32]
    chosen: Tensor


@dataclass(frozen=True)
class Proposal:
    """Images of one label that may be poisoned.

    Attributes:
        label: their class.
        kind: how they were found.
        share: of the label among all images at that end, in [0, 1].
        seeds: (S,) int64, most likely poisoned if any image of the label is.
        clean: (C,) int64, images of the label at the other end.
    """

    label: int
    kind: Kind
    share: float
    seeds: NDArray[np.int64]
    clean: NDArray[np.int64]


def epochs_for(images: int) -> int:
    """How often each image is seen: more often where there are few."""
    return int(np.clip(round(_VISITS / images), *_EPOCHS))


def look(bench: Workbench, labels: Tensor, chosen: Tensor, classes: int, seed: int) -> Look:
    """Learn the labels and note the losses.

    Args:
        bench: the images.
        labels: (N,) int64.
        chosen: (M,) int64, the images to learn from.
        classes: how many there are.
        seed: of the network.
    """
    epochs = epochs_for(len(chosen))
    looked_at = {*_early(epochs), epochs - 2, epochs - 1}
    losses: dict[int, NDArray[np.float32]] = {}
    epoch = 0

    def watch(net: SmallNet) -> None:
        nonlocal epoch
        if epoch in looked_at:
            answers = ask(bench, net, bench.images[chosen])
            losses[epoch] = F.cross_entropy(answers, labels[chosen], reduction="none").numpy()
        epoch += 1

    net = learn_labels(bench, labels, chosen, classes, epochs, seed, watch=watch)
    early, late = (
        np.asarray(np.mean([losses[number] for number in numbers], 0), np.float32)
        for numbers in (_early(epochs), (epochs - 2, epochs - 1))
    )
    return Look(net, early, late, chosen)


def _early(epochs: int) -> range:
    """The epochs, from 0, in which the classes are learned and most triggers are not yet."""
    return range(1, 1 + max(2, epochs // 5))


def proposals(seen: Look, labels: Tensor, classes: int, most: int) -> list[Proposal]:
    """The labels that stick out at either end of the losses, and their seeds.

    Args:
        seen: from `look`.
        labels: (N,) int64.
        classes: how many there are.
        most: labels at either end.
    """
    numbers, own = seen.chosen.numpy(), labels[seen.chosen].numpy()
    found, usual = [], usual_size(labels[seen.chosen])
    for kind, order in ((Kind.LOW, np.argsort(seen.late)), (Kind.HIGH, np.argsort(-seen.early))):
        tail = own[order[: max(20, round(_TAIL * len(order)))]]
        shares = np.bincount(tail, minlength=classes) / len(tail)
        for label in np.argsort(-shares, kind="stable")[:most]:
            ranked = order[own[order] == label]
            if shares[label] >= max(_SMALLEST_SHARE, _STICKS_OUT / classes) and len(ranked) >= FEWEST:
                seeds, clean = _ends(ranked, seen.late, kind, usual)
                found.append(Proposal(int(label), kind, float(shares[label]), numbers[seeds], numbers[clean]))
    return found


def usual_size(labels: Tensor) -> float:
    """The median number of images of a label that occurs in (N,) int64."""
    counts = torch.bincount(labels)
    return float(np.median(counts[counts > 0].numpy()))


def clean_count(images: int, usual: float) -> int:
    """How many of a label's images, those least suspect, are taken for clean.

    A quarter of a class of the usual size, but a tenth of the label at least and three tenths at most: where one label
    has far more images than the others, most of them may be poisoned.

    Args:
        images: of the label.
        usual: from `usual_size`.
    """
    return max(4, int(np.clip(0.25 * usual, 0.1 * images, 0.3 * images)))


def _ends(
    ranked: NDArray[np.int64], late: NDArray[np.float32], kind: Kind, usual: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The seeds and the clean images among those of one label, the most suspect first."""
    clean = ranked[-clean_count(len(ranked), usual) :]
    if kind is Kind.LOW:
        return ranked[: max(_FEWEST_SEEDS, int(_LOW_SEEDS * len(ranked)))], clean
    count = max(_FEWEST_SEEDS, int(_HIGH_SEEDS * len(ranked)))
    contradicted = ranked[: 2 * count]
    # Those that were learned in the end: a trigger teaches them, a plain mistake stays one.
    return contradicted[np.argsort(late[contradicted])][:count], clean
