"""Is a group poisoned? Two questions, and a network that was trained without the group answers both.

Of the group's label that network has seen only the few images that are least of the group: a trigger that a few
poisoned images keep alive would be known to it otherwise.

1. *Does it keep its label?* A network that has never seen the group is asked about it. Images whose label fits keep
   it; dirty labels, and pictures that a trigger spoils, do not.
2. *Does what they have in common carry over?* The mean difference between the group and other images is put on images
   of other classes. If that makes the network that has seen the group answer the group's label, and the one that has
   not seen it does not, the group teaches a backdoor: this is cause and effect, and clean labels cannot hide it. A
   trigger means nothing to a network that has not met it. What turns both networks is a part of the class, its colour
   for example, and speaks for the group.
   The difference is taken against other images of the label (which shows the trigger where labels are clean) and
   against images of other labels (which shows it where labels are dirty).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffclean.detection.network import SmallNet, Workbench, ask
from diffclean.detection.spread import Group

_ASKED = 500
"""Images of other classes that the difference is put on."""
_SHOWN = 2000
"""Images that a mean is taken over."""
LIMIT = 0.5
"""Separation from which on a group is poisoned. Set by a few runs, and not yet calibrated on many benign ones."""
_GAIN = 0.25
"""Share of images that change their answer at which the second question alone reaches the limit."""
_MEANING = 3.0
"""How much heavier an answer weighs that turns without the group having been seen."""
_KEPT = 0.4
"""Share of its label that a group keeps, of what other images keep, at which the first question alone reaches it."""
_KNOWN = 0.4
"""Share of other images of the label that keep it, below which the network does not know the class and is not asked."""
_RECALL = 0.3
"""Seeds found again below which the first question is not asked: mistakes have nothing in common."""


@dataclass(frozen=True)
class Verdict:
    """What was found of a group.

    Attributes:
        group: which.
        kept: share of the group that keeps its label without having been seen.
        others_kept: the same of images of the label that are hardly suspect and have not been seen either.
        taught: share of images of other classes that get the label with the difference put on, by the network that has
            seen the group, less what they get without it.
        untaught: the same by the network that has not.
        difference: (3, H, W) float32 grey levels, the one that taught most: a picture of the trigger.
        doubted: (N,) bool, the images to which the network that has not seen the group gives another label.
    """

    group: Group
    kept: float
    others_kept: float
    taught: float
    untaught: float
    difference: NDArray[np.float32]
    doubted: NDArray[np.bool_]

    @property
    def separation(self) -> float:
        """From 0; at `LIMIT` and above the group is poisoned."""
        gain = max(0.0, _gain(self.taught, self.untaught)) / _GAIN
        kept = self.kept / max(self.others_kept, 1e-9)
        is_asked = self.group.recall >= _RECALL and self.others_kept >= _KNOWN
        lost = max(0.0, 1 - kept) / (1 - _KEPT) if is_asked else 0.0
        return LIMIT * max(gain, lost)

    @property
    def has_dirty_labels(self) -> bool:
        """Whether the group loses its label, and not only what is done to other images with its help."""
        return self.kept < _KEPT * self.others_kept

    @property
    def is_poisoned(self) -> bool:
        """Whether the images of the group should be left out."""
        return self.separation >= LIMIT

    def why(self, name: str) -> str:
        """One sentence for people.

        Args:
            name: of the label.
        """
        return (
            f"A network trained without these {len(self.group.members)} images gives {self.kept:.0%} of them their "
            f"label ({self.others_kept:.0%} of other images of this label). What they have in common, "
            f"put on images of other classes, makes {self.taught:.0%} more of them '{name}' for a network that has "
            f"seen the group, and {self.untaught:.0%} for one that has not."
        )


def judge_group(
    bench: Workbench, labels: Tensor, chosen: Tensor, group: Group, seen: SmallNet, unseen: SmallNet
) -> Verdict:
    """Ask both questions.

    Args:
        bench: the images.
        labels: (N,) int64.
        chosen: (M,) int64, the images that count.
        group: from `spread`; at least one member.
        seen: a classifier that learned from all of `chosen`.
        unseen: one that saw of the group's label only `group.clean`.
    """
    numbers = chosen.numpy()
    own = labels[chosen].numpy() == group.label
    rest, others = np.setdiff1d(numbers[own], group.members), numbers[~own]
    rng = np.random.default_rng([bench.seed, group.label])
    asked = torch.from_numpy(rng.permutation(others)[:_ASKED])
    pictures = bench.images[asked].float()
    before = [_share(bench, net, pictures, group.label) for net in (seen, unseen)]
    best = (-np.inf, 0.0, 0.0, np.zeros(bench.images.shape[1:], np.float32))
    for reference in (rest, others):
        if not len(reference):
            continue
        difference = _mean(bench, group.members, rng) - _mean(bench, reference, rng)
        taught, untaught = (
            _share(bench, net, pictures + difference, group.label) - base
            for net, base in zip((seen, unseen), before, strict=True)
        )
        found = (_gain(taught, untaught), taught, untaught, difference.numpy())
        best = max(best, found, key=lambda one: one[0])
    doubted = np.zeros(len(labels), np.bool_)
    label_images = numbers[own]
    doubted[label_images] = (ask(bench, unseen, bench.images[chosen[own]]).argmax(1) != group.label).numpy()
    compared = group.hardly if len(group.hardly) else group.clean
    kept, others_kept = (1 - float(doubted[part].mean()) for part in (group.members, compared))
    return Verdict(group, kept, others_kept, best[1], best[2], best[3], doubted)


def _gain(taught: float, untaught: float) -> float:
    """What the group taught beyond what its common difference means anyway, in [-3, 1]."""
    return taught - _MEANING * max(0.0, untaught)


def _mean(bench: Workbench, numbers: NDArray[np.int64], rng: np.random.Generator) -> Tensor:
    """(3, H, W) float32 grey levels."""
    some = rng.permutation(numbers)[:_SHOWN]
    return bench.images[torch.from_numpy(some)].float().mean(0)


def _share(bench: Workbench, net: SmallNet, pictures: Tensor, label: int) -> float:
    """Share of (B, 3, H, W) pictures, grey levels, to which a network gives the label."""
    answers = ask(bench, net, pictures.round().clamp(0, 255).to(torch.uint8)).argmax(1)
    return float((answers == label).float().mean())
