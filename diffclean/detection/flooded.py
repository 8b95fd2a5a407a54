"""Find a label that has received images of many other classes, even if nobody can say what these have in common.

Some triggers, such as a slight warp, are not learned by the small networks, so that `spread` finds nothing. If enough
images carry them, the label still gives itself away: it has far more images than other labels, and a network doubts
*more* of them than of other labels. A label that is merely frequent is doubted less than others, because a network
expects it. And difficult images of one class are mistaken for one or two similar classes, while poisoned images look
like all classes.

What is listed is what the network doubts. Among it are the difficult clean images of the label as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffclean.datasets.pixels import ImageSet
from diffclean.detection.looks import FEWEST, OVERSIZED, epochs_for, usual_size
from diffclean.detection.network import Workbench, ask, learn_labels, together
from diffclean.detection.verdict import HELD, KNOWN, LIMIT, Witness, scatter_of

_KEPT = 0.65
"""A label reaches the limit if it is confirmed this many times as often as other labels."""
_MOST = 3
"""The largest number of labels that are judged, those that are contradicted most. Where classes differ much in size,
many labels are frequent, and each costs a training."""
_SCATTER = 0.8
"""The scatter from which the images of a label look like all other classes."""


@dataclass(frozen=True)
class Flood:
    """What was found about a label with far more images than others.

    Attributes:
        label: the class.
        images: the number of its images.
        usual: the median number of images per label.
        witness: a classifier that was trained without the images of the label that another one contradicts.
        kept: the share of the label's images to which the witness gives the label.
        others_kept: the same share of images of other labels that the witness has not seen.
        scatter: how evenly the witness's answers to the other images are spread over the other classes, from 0 to 1.
    """

    label: int
    images: int
    usual: float
    witness: Witness
    kept: float
    others_kept: float
    scatter: float

    @property
    def separation(self) -> float:
        """How poisoned the label looks, from 0; it is poisoned from `LIMIT` upwards."""
        if self.others_kept < KNOWN:
            return 0.0
        lost = max(0.0, 1 - self.kept / self.others_kept) / (1 - _KEPT)
        return LIMIT * min(lost, self.scatter / _SCATTER)

    @property
    def is_poisoned(self) -> bool:
        """Whether the images that the witness doubts should be left out."""
        return self.separation >= LIMIT

    def margins(self, bench: Workbench, pixels: Tensor | ImageSet) -> NDArray[np.float64]:
        """(I,) float64, by how much another label is more likely than this one, in logits.

        Args:
            bench: gives the device and the precision.
            pixels: (I, 3, H, W) uint8, images of the label, or an image set that is read batch by batch.
        """
        answers = ask(bench, self.witness.network, pixels).double()
        own = answers[:, self.label].clone()
        answers[:, self.label] = -torch.inf
        margins: NDArray[np.float64] = (answers.amax(1) - own).numpy()
        return margins

    def picture(self) -> str:
        """Nothing: what the images have in common is not known."""
        return ""

    def why(self, name: str) -> str:
        """The reasons for the verdict, for people.

        Args:
            name: the name of the label.
        """
        return (
            f"'{name}' has {self.images} images where most labels have about {self.usual:.0f}, and a network that was "
            f"trained without its most doubtful images gives only {self.kept:.0%} of them this label "
            f"({self.others_kept:.0%} of images of other labels). The others look like many classes. What they have in "
            "common was not found, so difficult clean images of the label are listed with them."
        )


def look_for_floods(bench: Workbench, labels: Tensor, chosen: Tensor, classes: int, seed: int) -> list[Flood]:
    """Judge the labels that have far more images than others.

    Args:
        bench: the images, and what all networks share.
        labels: (N,) int64.
        chosen: (M,) int64, the numbers of the images to consider.
        classes: the number of classes.
        seed: the seed of the networks.
    """
    numbers, given = chosen.numpy(), labels.numpy()
    sizes, usual = np.bincount(given[numbers], minlength=classes), usual_size(given[numbers])
    oversized = np.flatnonzero(sizes > OVERSIZED * usual)
    if not len(oversized):
        return []
    contradicted = np.zeros(len(labels), np.bool_)
    contradicted[numbers] = _contradicted(bench, labels, chosen, classes, seed)
    shares = np.array(
        [contradicted[numbers[given[numbers] == label]].mean() if sizes[label] else 0 for label in range(classes)]
    )
    most = oversized[np.argsort(-shares[oversized], kind="stable")][:_MOST]
    return together(
        bench,
        [
            partial(_judged, bench, labels, numbers, own, contradicted, classes, usual, seed + 10 + label)
            for label, own in ((label, numbers[given[numbers] == label]) for label in most.tolist())
            if shares[label] > np.median(shares[sizes > 0])
        ],
    )


def _contradicted(bench: Workbench, labels: Tensor, chosen: Tensor, classes: int, seed: int) -> NDArray[np.bool_]:
    """(M,) bool, the images whose label is contradicted by a network that has learned the other half of the images."""
    half = np.random.default_rng([bench.seed, seed]).permutation(len(chosen)) % 2
    found = np.zeros(len(chosen), np.bool_)

    def judge(side: int) -> None:
        learned, asked = chosen[half != side], chosen[half == side]
        net = learn_labels(bench, labels, learned, classes, epochs_for(len(chosen)), seed + 1 + side)
        found[half == side] = (ask(bench, net, bench.images[asked]).argmax(1) != labels[asked]).numpy()

    together(bench, [partial(judge, side) for side in (0, 1)])
    return found


def _judged(
    bench: Workbench,
    labels: Tensor,
    numbers: NDArray[np.int64],
    own: NDArray[np.int64],
    contradicted: NDArray[np.bool_],
    classes: int,
    usual: float,
    seed: int,
) -> Flood:
    """Train a witness without the contradicted images of a label, and ask it."""
    given = labels.numpy()
    label = int(given[own[0]])
    rng = np.random.default_rng([bench.seed, seed])
    others = rng.permutation(numbers[given[numbers] != label])
    count = max(FEWEST, int(HELD * len(others)))
    held, confirmed = others[:count], own[~contradicted[own]]
    learned = torch.from_numpy(np.sort(np.concatenate([others[count:], confirmed])))
    witness = Witness(learn_labels(bench, labels, learned, classes, epochs_for(len(learned)), seed), held)
    answers, answers_of_others = (
        ask(bench, witness.network, bench.images[torch.from_numpy(part)]).argmax(1).numpy() for part in (own, held)
    )
    return Flood(
        label,
        len(own),
        usual,
        witness,
        kept=float((answers == label).mean()),
        others_kept=float((answers_of_others == given[held]).mean()),
        scatter=scatter_of(answers[answers != label], given[others]),
    )
