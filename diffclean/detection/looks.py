"""Which images look as if they shared something that their label does not explain.

One small network learns the labels as they are, and every image's loss is noted early and late. A trigger is
a short cut, and short cuts show in one of three ways:

- *low*: once the network has learned the trigger, poisoned images have the lowest losses of all (anti-backdoor
  learning: Li et al. 2021, arXiv 2110.11571), so one label has far more than its share among the surest images;
- *high*: before that, an image with a dirty label looks like a mistake, so one label has far more than its share among
  the images that the network contradicts most, and it learns them in the end;
- *stubborn*: a trigger that so small a network does not learn leaves mistakes that stay mistakes to the end.

A label is a candidate by its share. What its images have in common is not asked here: `spread` does that.
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
"""Images shown to the network in all: what CIFAR-10 triggers took to be learned, and then some."""
_EPOCHS = (8, 24)
_TAIL = 0.02
"""Share of all images whose labels are counted at either end."""
_LOW_SEEDS, _HIGH_SEEDS, _OVERSIZED_SEEDS = 0.04, 0.06, 0.12
"""Share of a label's images that are taken for seeds. A network learns a few images by heart, and not what they have in
common, so an oversized label, which has no images that are taken for clean, gives more of them."""
_CLEAN = (0.5, 0.85)
"""Which part of a label's images, the most suspect first, is taken for clean. The last ones are left out: a poisoned
image whose trigger was not learned lies at the end where those that were learned do not."""
_OVERSIZED = 1.5
"""Times the usual number of images of a label, see `Proposal.oversized`."""
_FEWEST_SEEDS = 8
_FEWEST_IN_TAIL = 20
_STICKS_OUT = 1.5
"""Times its even share that a label must have at one end to be a candidate."""
_SMALLEST_SHARE = 0.05
FEWEST = 2 * _FEWEST_SEEDS
"""Images of one label below which nothing is said of it."""


class Kind(StrEnum):
    """At which end of the losses the seeds lie."""

    LOW = "low"
    HIGH = "high"
    STUBBORN = "stubborn"


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
        clean: (C,) int64, images of the label that are most likely not; none where the label is oversized.
        usual: the median number of images of a label.
        oversized: the label has far more images than that, as if images of other classes had been given it. Most of
            them may be poisoned then, so none is taken for clean.
    """

    label: int
    kind: Kind
    share: float
    seeds: NDArray[np.int64]
    clean: NDArray[np.int64]
    usual: float
    oversized: bool


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


def proposals(
    seen: Look, labels: Tensor, classes: int, most: int, cleared: Collection[tuple[int, Kind]] = ()
) -> list[Proposal]:
    """The labels that stick out at either end of the losses, and their seeds.

    Args:
        seen: from `look`.
        labels: (N,) int64.
        classes: how many there are.
        most: labels at either end.
        cleared: labels that are passed over at one end: what sticks out is looked for among the others.
    """
    numbers, own = seen.chosen.numpy(), labels[seen.chosen].numpy()
    usual = _usual_size(own)
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
            if shares[label] >= max(_SMALLEST_SHARE, _STICKS_OUT / classes) and len(ranked) >= FEWEST:
                oversized = len(ranked) > _OVERSIZED * usual
                begin, end = (0, 0) if oversized else (int(part * len(ranked)) for part in _CLEAN)
                seeds, clean = numbers[_seeds(ranked, seen.late, kind, oversized)], numbers[ranked[begin:end]]
                found.append(Proposal(int(label), kind, float(shares[label]), seeds, clean, usual, oversized))
    return found


def _usual_size(labels: NDArray[np.int64]) -> float:
    """The median number of images of a label that occurs."""
    counts = np.bincount(labels)
    return float(np.median(counts[counts > 0]))


def _seeds(ranked: NDArray[np.int64], late: NDArray[np.float32], kind: Kind, oversized: bool) -> NDArray[np.int64]:
    """The seeds among the images of one label, the most suspect first."""
    share = _OVERSIZED_SEEDS if oversized else _LOW_SEEDS if kind is Kind.LOW else _HIGH_SEEDS
    count = max(_FEWEST_SEEDS, int(share * len(ranked)))
    if kind is not Kind.HIGH:
        return ranked[:count]
    contradicted = ranked[: 2 * count]
    # Those that were learned in the end: a trigger teaches them, a plain mistake stays one.
    return contradicted[np.argsort(late[contradicted], kind="stable")][:count]
