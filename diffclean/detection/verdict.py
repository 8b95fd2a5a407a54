"""Is a group poisoned? Two questions, and a network that was trained without the group, the witness, answers both.

1. *Does it keep its label?* The witness is asked about the group, and about images of the same label that it has not
   seen either and that are surely not of the group. Images whose label fits keep it about as often as those; dirty
   labels, and pictures that a trigger spoils, do not.
2. *Does what they have in common carry over?* The mean difference between the group and other images is put on images
   of other classes. If that makes the network that has seen the group answer the group's label, and the witness does
   not, the group teaches a backdoor: this is cause and effect, and clean labels cannot hide it. A
   trigger means nothing to a network that has not met it. What turns both networks is a part of the class, its colour
   for example, and speaks for the group.
   The difference is taken against other images of the label (which shows the trigger where labels are clean) and
   against images of other labels (which shows it where labels are dirty).
   Where all pictures of a class are alike, as signs are, their mean is a picture of the class and turns answers too: so
   the same is done with other labels, and what their means teach is taken off.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from diffclean.data.encode import encode
from diffclean.datasets.pixels import ImageSet
from diffclean.detection.looks import epochs_for
from diffclean.detection.network import SmallNet, Workbench, ask, learn_labels
from diffclean.detection.spread import Group

_ASKED = 500
"""Images of other classes that the difference is put on."""
_SHOWN = 2000
"""Images that a mean is taken over."""
LIMIT = 0.5
"""Separation from which on a group is poisoned."""
_GAIN = 0.25
"""Share of images that change their answer at which the second question alone reaches the limit."""
_USUAL_LABELS = 12
"""Other labels that are tried for a comparison."""
_MEANING = 3.0
"""How much heavier an answer weighs that turns without the group having been seen."""
_KEPT = 0.4
"""Share of its label that a group keeps, of what other images keep, at which the first question alone reaches it."""
_SCATTER = 0.4
"""Scatter below which a lost label weighs less: images of a kind that the witness has not met, vans among cars, go to
the one or two classes that are like them, and poisoned images of many classes go to many."""
_KNOWN = 0.25
"""Share of other images of the label that keep it, below which the witness does not know the class and is not asked."""
_HELD = 0.2
"""Share of the images that are surely not of a group that the witness does not see, for a comparison."""
_FEWEST_HELD = 8
_PICTURE_SIDE = 128
"""Pixels."""


@dataclass(frozen=True)
class Witness:
    """A classifier that has seen nothing of some groups.

    Attributes:
        network: the classifier.
        held: (H,) int64, images of the groups' labels, not of the groups, that it has not seen either.
    """

    network: SmallNet
    held: NDArray[np.int64]


def witness(
    bench: Workbench, labels: Tensor, chosen: Tensor, groups: Sequence[Group], classes: int, seed: int
) -> Witness:
    """Train a classifier without the groups.

    Args:
        bench: the images.
        labels: (N,) int64.
        chosen: (M,) int64, the images that count.
        groups: one a label.
        classes: how many there are.
        seed: of the network.
    """
    rng = np.random.default_rng([bench.seed, seed])
    numbers, given = chosen.numpy(), labels.numpy()
    held, taken = [], [numbers[~np.isin(given[numbers], [group.label for group in groups])]]
    for group in groups:
        shuffled = rng.permutation(group.rest)
        count = min(max(_FEWEST_HELD, int(_HELD * len(shuffled))), len(shuffled) // 2)
        held.append(shuffled[:count])
        taken.append(shuffled[count:])
    learned = torch.from_numpy(np.sort(np.concatenate(taken)))
    network = learn_labels(bench, labels, learned, classes, epochs_for(len(learned)), seed)
    return Witness(network, np.concatenate(held))


@dataclass(frozen=True)
class Verdict:
    """What was found of a group.

    Attributes:
        group: which.
        witness: who was asked.
        kept: share of the group that keeps its label.
        others_kept: the same of images of the label that are not of the group.
        scatter: how evenly the images of the group that lose their label are spread over the other classes, from 0 (all
            go to one class) to 1; 1 where there is one other class only.
        taught: share of images of other classes that get the label with the difference put on, by the network that has
            seen the group, less what they get without it.
        untaught: the same by the witness.
        usual: what images of other labels teach in the same way, see `usually_taught`.
        difference: (3, H, W) float32 grey levels, the one that taught most: a picture of the trigger.
    """

    group: Group
    witness: Witness
    kept: float
    others_kept: float
    scatter: float
    taught: float
    untaught: float
    usual: float
    difference: NDArray[np.float32]

    @property
    def separation(self) -> float:
        """From 0; at `LIMIT` and above the group is poisoned."""
        gain = max(0.0, _gain(self.taught, self.untaught) - self.usual) / _GAIN
        lost = max(0.0, 1 - self._kept_of_others) / (1 - _KEPT) if self.others_kept >= _KNOWN else 0.0
        return LIMIT * max(gain, lost * min(1.0, self.scatter / _SCATTER))

    @property
    def has_dirty_labels(self) -> bool:
        """Whether the group loses its label, and not only what is done to other images with its help."""
        return self._kept_of_others < _KEPT

    @property
    def is_poisoned(self) -> bool:
        """Whether the images of the group should be left out."""
        return self.separation >= LIMIT

    @property
    def _kept_of_others(self) -> float:
        return self.kept / max(self.others_kept, 1e-9)

    def picture(self) -> str:
        """What the group has in common, as a PNG file in base64: its difference around mid-grey, with full contrast.

        It shows the trigger where every poisoned image has the same. Longer sides than `_PICTURE_SIDE` are reduced.
        """
        difference = torch.from_numpy(self.difference)[None]
        longest = max(difference.shape[2:])
        if longest > _PICTURE_SIDE:
            size = [max(1, side * _PICTURE_SIDE // longest) for side in difference.shape[2:]]
            difference = F.interpolate(difference, size=size, mode="area")
        strongest = float(difference.abs().max().clamp_min(1e-6))
        grey = (128 + difference[0] * (127 / strongest)).round().to(torch.uint8)
        return b64encode(encode(grey.permute(1, 2, 0).contiguous().numpy())).decode("ascii")

    def why(self, name: str) -> str:
        """One sentence for people.

        Args:
            name: of the label.
        """
        return (
            f"A network trained without these {len(self.group.members)} images gives {self.kept:.0%} of them their "
            f"label ({self.others_kept:.0%} of other images of this label). What they have in common, "
            f"put on images of other classes, makes {self.taught:.0%} more of them '{name}' for a network that has "
            f"seen the group, and {self.untaught:.0%} for one that has not. What images of other classes have in "
            f"common does that to {self.usual:.0%} at most."
        )


def judge_group(
    bench: Workbench,
    labels: Tensor,
    chosen: Tensor,
    group: Group,
    seen: SmallNet,
    witness: Witness,
    usual: float = 0.0,
) -> Verdict:
    """Ask both questions.

    Args:
        bench: the images.
        labels: (N,) int64.
        chosen: (M,) int64, the images that count.
        group: from `spread`; at least one member.
        seen: a classifier that learned from all of `chosen`.
        witness: that has not seen the group.
        usual: from `usually_taught`.
    """
    given, numbers = labels.numpy(), chosen.numpy()
    found = _taught(bench, labels, chosen, group.label, group.members, group.rest, (seen, witness.network))
    taught, untaught, difference = max(found, key=lambda one: _gain(one[0], one[1]))
    held = witness.held[given[witness.held] == group.label]
    answers, answers_of_others = (
        ask(bench, witness.network, bench.images[torch.from_numpy(part)]).argmax(1).numpy()
        for part in (group.members, held)
    )
    kept, others_kept = (float((some == group.label).mean()) for some in (answers, answers_of_others))
    scatter = _scatter(answers[answers != group.label], given[numbers[given[numbers] != group.label]])
    return Verdict(group, witness, kept, others_kept, scatter, taught, untaught, usual, difference)


def usually_taught(
    bench: Workbench,
    labels: Tensor,
    chosen: Tensor,
    losses: NDArray[np.float32],
    seen: SmallNet,
    suspect: Collection[int],
) -> float:
    """The most that the surest half of any other label teaches with its mean, in [0, 1]; a few labels are tried.

    Args:
        bench: the images.
        labels: (N,) int64.
        chosen: (M,) int64, the images that count.
        losses: (M,) of each of them.
        seen: a classifier that learned from them.
        suspect: labels that are not asked.
    """
    numbers = chosen.numpy()
    given = labels.numpy()[numbers]
    asked = np.setdiff1d(np.unique(given), list(suspect))
    most = 0.0
    for label in np.random.default_rng([bench.seed, 7]).permutation(asked)[:_USUAL_LABELS].tolist():
        ranked = numbers[given == label][np.argsort(losses[given == label])]
        half = len(ranked) // 2
        if half:
            found = _taught(bench, labels, chosen, label, ranked[:half], ranked[half:], (seen,))
            most = max(most, *(one[0] for one in found))
    return most


def _taught(
    bench: Workbench,
    labels: Tensor,
    chosen: Tensor,
    label: int,
    members: NDArray[np.int64],
    rest: NDArray[np.int64],
    networks: Sequence[SmallNet],
) -> list[tuple[float, float, NDArray[np.float32]]]:
    """What each of two differences, put on images of other labels, adds to the first and the last network's answers."""
    numbers = chosen.numpy()
    others = numbers[labels.numpy()[numbers] != label]
    rng = np.random.default_rng([bench.seed, label])
    pictures = bench.images[torch.from_numpy(rng.permutation(others)[:_ASKED])].float()
    before = [_share(bench, net, pictures, label) for net in networks]
    found = []
    for reference in (rest, others):
        difference = _mean(bench, members, rng) - _mean(bench, reference, rng)
        added = [
            _share(bench, net, pictures + difference, label) - base for net, base in zip(networks, before, strict=True)
        ]
        found.append((added[0], added[-1], difference.numpy()))
    return found


def _scatter(answers: NDArray[np.int64], labels: NDArray[np.int64]) -> float:
    """The exponential of the entropy of some answers, from 0 (one class) to 1 (as many as labels have)."""
    if not len(answers):
        return 0.0
    effective, possible = (
        float(np.exp(-(shares * np.log(shares)).sum()))
        for shares in (counts[counts > 0] / counts.sum() for counts in (np.bincount(answers), np.bincount(labels)))
    )
    return min(1.0, (effective - 1) / (possible - 1)) if possible > 1 else 1.0


def doubted(bench: Workbench, witness: Witness, label: int, pixels: Tensor | ImageSet) -> NDArray[np.bool_]:
    """(I,) bool, whether the witness gives images another label.

    Args:
        bench: the images.
        witness: who is asked.
        label: the one that they have.
        pixels: (I, 3, H, W) uint8, or images that are read when they are asked for.
    """
    answers: NDArray[np.int64] = ask(bench, witness.network, pixels).argmax(1).numpy()
    return answers != label


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
