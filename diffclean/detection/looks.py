"""Find candidates: labels whose images may share something that the label does not explain.

One small network learns the labels as they are, and the loss of every image is recorded early and late in training. A
trigger is a shortcut, and shortcuts show up in one of three ways:

- *low*: once the network has learned the trigger, poisoned images have the lowest losses of all (anti-backdoor
  learning: Li et al. 2021, arXiv 2110.11571). One label then has far more than its share of the images with the lowest
  losses.
- *high*: before the network has learned the trigger, an image with a dirty label looks like a mistake. One label then
  has far more than its share of the images with the highest losses, and the network learns these images in the end.
- *stubborn*: if the network is too small to learn the trigger, these mistakes remain mistakes to the end.

A label becomes a candidate by its share alone. `spread` then checks whether its images have anything in common.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from diffclean.detection.network import SmallNet, Workbench, ask, learn_labels

_VISITS = 60_000
"""The number of images shown to the network in all: more than CIFAR-10 triggers needed to be learned."""
_EPOCHS = (8, 24)
_TAIL = 0.02
"""The share of all images whose labels are counted at either end of the losses."""
_LOW_SEEDS, _HIGH_SEEDS, _OVERSIZED_SEEDS = 0.04, 0.06, 0.12
"""The share of a label's images that become seeds. A network memorises a few images instead of learning what they have
in common, so an oversized label, none of whose images are assumed to be clean, gives more seeds."""
_CLEAN = (0.5, 0.85)
"""The part of a label's images, ranked from the most suspect, that is assumed to be clean. The last images are left
out: poisoned images whose trigger was not learned lie at the opposite end from those whose trigger was learned."""
OVERSIZED = 1.5
"""A label with more than this many times the usual number of images is oversized, see `Proposal.oversized`."""
_FEWEST_SEEDS = 8
_FEWEST_IN_TAIL = 20
_STICKS_OUT = 1.5
"""To become a candidate, a label must have this many times its even share of the images at one end."""
_SMALLEST_SHARE = 0.05
FEWEST = 2 * _FEWEST_SEEDS
"""A label with fewer images than this is not judged."""


class Kind(StrEnum):
    """The way in which the seeds of a label were found in the losses."""

    LOW = "low"
    HIGH = "high"
    STUBBORN = "stubborn"


@dataclass(frozen=True)
class Look:
    """What one training showed.

    Attributes:
        network: the network at the end of the training.
        early: (M,) float32, the loss of each image, averaged over a few epochs after the first.
        late: (M,) float32, the loss of each image, averaged over the last two epochs.
        chosen: (M,) int64, the numbers of the images that the network learned from.
    """

    network: SmallNet
    early: NDArray[np.float32]
    late: NDArray[np.float32]
    chosen: Tensor


@dataclass(frozen=True)
class Proposal:
    """Images of one label that may be poisoned.

    Attributes:
        label: the class of the images.
        kind: how the seeds were found.
        share: the share that the label has of all images at that end of the losses, in [0, 1].
        seeds: (S,) int64, the images that are most likely poisoned if any image of the label is.
        clean: (C,) int64, the images of the label that are most likely clean; empty if the label is oversized.
        usual: the median number of images per label.
        oversized: whether the label has far more images than that, as if it had received images of other classes. Most
            of its images may then be poisoned, so none is assumed to be clean.
    """

    label: int
    kind: Kind
    share: float
    seeds: NDArray[np.int64]
    clean: NDArray[np.int64]
    usual: float
    oversized: bool


def epochs_for(images: int) -> int:
    """The number of epochs to train: more if there are few images."""
    return int(np.clip(round(_VISITS / images), *_EPOCHS))


def look(bench: Workbench, labels: Tensor, chosen: Tensor, classes: int, seed: int) -> Look:
    """Train a small network on the labels and record the losses.

    Args:
        bench: the images, and what all networks share.
        labels: (N,) int64.
        chosen: (M,) int64, the numbers of the images to learn from.
        classes: the number of classes.
        seed: the seed of the network.
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
    """The epochs, counted from 0, in which the classes have been learned but most triggers have not."""
    return range(1, 1 + max(2, epochs // 5))


def proposals(
    seen: Look, labels: Tensor, classes: int, most: int, cleared: Collection[tuple[int, Kind]] = ()
) -> list[Proposal]:
    """Propose the labels with more than their share of images at either end of the losses, with their seeds.

    Args:
        seen: the result of `look`.
        labels: (N,) int64.
        classes: the number of classes.
        most: the largest number of labels to check at each end.
        cleared: labels to leave out at one end, so that other labels are proposed in their place.
    """
    numbers, own = seen.chosen.numpy(), labels[seen.chosen].numpy()
    usual = usual_size(own)
    found = []
    orders = {
        Kind.LOW: np.argsort(seen.late),
        Kind.HIGH: np.argsort(-seen.early),
        Kind.STUBBORN: np.argsort(-seen.late),
    }
    for kind, order in orders.items():
        passed = [label for label, where in cleared if where is kind]
        order = order[~np.isin(own[order], passed)]
        tail = own[order[: max(_FEWEST_IN_TAIL, round(_TAIL * len(order)))]]
        shares = np.bincount(tail, minlength=classes) / max(1, len(tail))
        for label in np.argsort(-shares, kind="stable")[:most]:
            ranked = order[own[order] == label]
            enough = min(len(ranked), len(own) - len(ranked)) >= FEWEST  # `own` has the labels that were passed, too
            if shares[label] >= max(_SMALLEST_SHARE, _STICKS_OUT / classes) and enough:
                oversized = len(ranked) > OVERSIZED * usual
                begin, end = (0, 0) if oversized else (int(part * len(ranked)) for part in _CLEAN)
                seeds, clean = numbers[_seeds(ranked, seen.late, kind, oversized)], numbers[ranked[begin:end]]
                found.append(Proposal(int(label), kind, float(shares[label]), seeds, clean, usual, oversized))
    return found


def usual_size(labels: NDArray[np.int64]) -> float:
    """The median number of images per label, over the labels that occur."""
    counts = np.bincount(labels)
    return float(np.median(counts[counts > 0]))


def _seeds(ranked: NDArray[np.int64], late: NDArray[np.float32], kind: Kind, oversized: bool) -> NDArray[np.int64]:
    """The seeds among the images of one label, which are ranked from the most suspect."""
    share = _OVERSIZED_SEEDS if oversized else _LOW_SEEDS if kind is Kind.LOW else _HIGH_SEEDS
    count = max(_FEWEST_SEEDS, int(share * len(ranked)))
    if kind is not Kind.HIGH:
        return ranked[:count]
    contradicted = ranked[: 2 * count]
    # Keep the images that were learned in the end: the network learns a trigger, but an ordinary mistake stays one.
    return contradicted[np.argsort(late[contradicted], kind="stable")][:count]
