"""Find poisoned images that are spread over many labels, as all-to-all attacks leave them.

No label stands out then, so the search label by label has nothing to begin with. All images whose labels a network
contradicts take the place of a label here, and all images whose labels it confirms take the place of the other labels:
`spread` asks whether what the network contradicts most has something in common. Ordinary mistakes do not.

The verdict is that of a witness that was trained without the group. A group is poisoned if its labels are wrong
*systematically*: the witness hardly ever gives an image its label, and what it answers instead determines the label.
Difficult images are mistaken for one another, in both directions and now and then.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffclean.detection.looks import Kind, Look, Proposal, epochs_for
from diffclean.detection.network import Workbench, ask, learn_labels
from diffclean.detection.spread import Group, refined, spread
from diffclean.detection.verdict import HELD, KNOWN, LIMIT, Witness, doubted, mean_image, picture_of

_CONFIRMED, _CONTRADICTED = 0, 1
_SEEDS, _FEWEST_SEEDS = 0.12, 32
"""The share of the contradicted images that become seeds, those with the highest losses early and late, and the least
number of seeds. A network learns a few images by heart instead of what they have in common."""
_CLEAN = (0.5, 0.85)
"""The part of the contradicted images, ranked by their losses, that is assumed to be clean."""
_KEPT = 0.3
"""The most that a poisoned group may keep of its labels, as a multiple of what other images keep."""
_FOLLOWED = 0.5
"""How far the share of a poisoned group whose labels follow from the answers must lie from what chance gives, at 0, to
what a perfect all-to-all attack gives, at 1: then labels follow wherever the witness is right."""


@dataclass(frozen=True)
class Contradiction:
    """What was found about images of many labels that have something in common.

    Attributes:
        group: the images. Its label is not a class: `spread` was given whether labels are contradicted.
        witness: a classifier that was trained without the group.
        kept: the share of the group to which the witness gives its label.
        others_kept: the same share of images that are not in the group and that it has not seen either.
        followed: the share of the group whose label is the one that mostly goes with the witness's answer.
        chance: the same share of images whose labels are wrong at random.
        difference: (3, H, W) float32 grey levels, the mean of the group less that of images whose labels are confirmed.
    """

    group: Group
    witness: Witness
    kept: float
    others_kept: float
    followed: float
    chance: float
    difference: NDArray[np.float32]

    has_dirty_labels = True

    @property
    def separation(self) -> float:
        """How poisoned the group looks, from 0; it is poisoned from `LIMIT` upwards."""
        if self.others_kept < max(KNOWN, self.chance):
            return 0.0
        lost = max(0.0, 1 - self.kept / self.others_kept) / (1 - _KEPT)
        by_rule = max(0.0, self.followed - self.chance) / max(self.others_kept - self.chance, 1e-9)
        return LIMIT * min(lost, by_rule / _FOLLOWED)

    @property
    def is_poisoned(self) -> bool:
        """Whether the images of the group should be left out."""
        return self.separation >= LIMIT

    def concerns(self, labels: Tensor) -> Tensor:
        """(I,) int64, the numbers of all images that have a label: a rule may concern any of the (N,) labels."""
        return torch.where(labels >= 0)[0]

    def picture(self) -> str:
        """What the group has in common, see `verdict.picture_of`."""
        return picture_of(self.difference)

    def why(self, name: str) -> str:
        """The reasons for the verdict, for people.

        Args:
            name: the name of a label.
        """
        return (
            f"Some images of '{name}' belong to {len(self.group.members)} images of many classes that have something "
            f"in common. A network trained without them gives {self.kept:.0%} of them their label "
            f"({self.others_kept:.0%} of other images), and the labels of {self.followed:.0%} of them follow from the "
            f"label that it gives instead, as if somebody had exchanged the labels by a rule."
        )


def look_across(
    bench: Workbench, labels: Tensor, chosen: Tensor, seen: Look, classes: int, seed: int
) -> Contradiction | None:
    """Look for images of any labels that are wrong for a common reason; None if there are none.

    Args:
        bench: the images, and what all networks share.
        labels: (N,) int64.
        chosen: (M,) int64, the numbers of the images to consider.
        seen: the result of `look` at the same images.
        classes: the number of classes.
        seed: the seed of the networks.
    """
    contradicted = _contradicted(bench, labels, seen, classes)
    order = seen.chosen.numpy()[np.argsort(-seen.early - seen.late, kind="stable")]
    ranked = order[contradicted[order]]
    if len(ranked) < 2 * _FEWEST_SEEDS or len(order) - len(ranked) < 2 * _FEWEST_SEEDS:
        return None
    kinds = torch.from_numpy(np.where(contradicted, _CONTRADICTED, _CONFIRMED))
    seeds = ranked[: max(_FEWEST_SEEDS, int(_SEEDS * len(ranked)))]
    begin, end = (int(part * len(ranked)) for part in _CLEAN)
    share, usual = len(ranked) / len(order), float(len(ranked))
    proposal = Proposal(_CONTRADICTED, Kind.HIGH, share, seeds, ranked[begin:end], usual, oversized=False)
    group = spread(bench, kinds, chosen, proposal, seed)
    if group is None:
        return None
    found = _judged(bench, labels, order[~contradicted[order]], group, classes, seed + 50)
    if not found.is_poisoned:
        return found
    doubts = np.zeros(len(labels), np.bool_)
    doubts[order] = doubted(bench, found.witness, labels.numpy()[order], bench.images[torch.from_numpy(order)])
    whole = refined(bench, kinds, chosen, group, doubts, 1 - found.others_kept, seed + 60)
    return replace(found, group=whole)


def _contradicted(bench: Workbench, labels: Tensor, seen: Look, classes: int) -> NDArray[np.bool_]:
    """(N,) bool, the images whose label the network contradicts.

    In the end, it gives them another label, or it gave them theirs with less than an even chance early in training: in
    between, it may have learned them by heart.
    """
    answers = ask(bench, seen.network, bench.images[seen.chosen]).argmax(1)
    found = np.zeros(len(labels), np.bool_)
    found[seen.chosen.numpy()] = (answers != labels[seen.chosen]).numpy() | (seen.early > np.log(classes))
    return found


def _judged(
    bench: Workbench, labels: Tensor, confirmed: NDArray[np.int64], group: Group, classes: int, seed: int
) -> Contradiction:
    """Train a witness without the group, and ask it."""
    rng = np.random.default_rng([bench.seed, seed])
    outside = rng.permutation(np.concatenate([confirmed[group.scores[confirmed] <= group.limit], group.rest]))
    count = int(HELD * len(outside))
    held, learned = outside[:count], torch.from_numpy(np.sort(outside[count:]))
    network = learn_labels(bench, labels, learned, classes, epochs_for(len(learned)), seed)
    members = rng.permutation(group.members)
    answers, answers_of_others = (
        ask(bench, network, bench.images[torch.from_numpy(part)]).argmax(1).numpy() for part in (members, held)
    )
    given = labels.numpy()
    kept, others_kept = float((answers == given[members]).mean()), float((answers_of_others == given[held]).mean())
    difference = (mean_image(bench, members, rng) - mean_image(bench, confirmed, rng)).numpy()
    followed = _followed(answers, given[members], classes)
    chance = 1 / (classes - 1) if classes > 2 else 0.0  # of two classes, one wrong label is all there is
    return Contradiction(group, Witness(network, held), kept, others_kept, followed, chance, difference)


def _followed(answers: NDArray[np.int64], given: NDArray[np.int64], classes: int) -> float:
    """The share of images whose label is the most common *other* label among images with the same answer.

    The most common label is taken from one half of the images and counted in the other half, so that few images cannot
    look systematic by chance.
    """
    half = np.arange(len(answers)) % 2
    right = 0
    for side in (0, 1):
        counts = np.zeros((classes, classes), np.int64)
        np.add.at(counts, (answers[half == side], given[half == side]), 1)
        np.fill_diagonal(counts, -1)
        right += int((counts.argmax(1)[answers[half != side]] == given[half != side]).sum())
    return right / max(1, len(answers))
