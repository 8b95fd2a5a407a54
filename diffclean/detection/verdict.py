"""Decide whether a group is poisoned, by two questions to a network that was trained without the group, the witness.

1. *Does the group keep its label?* The witness classifies the images of the group, and images of the same label that it
   has not seen either and that are clearly not in the group. If the labels of the group fit, the witness gives it its
   label about as often as the other images. It does so less often for dirty labels and for images that a trigger
   spoils.
2. *Does the common difference teach a backdoor?* The mean difference between the group and other images is added to
   images of other classes. The group teaches a backdoor if this makes the network that has seen the group answer the
   group's label, and the witness does not. This is cause and effect, and clean labels cannot hide it: a trigger means
   nothing to a network that has never seen it. A difference that changes the answers of both networks is a property of
   the class, such as its colour, and counts in favour of the group.

   The difference is taken to other images of the label, which shows the trigger if labels are clean, and to images of
   other labels, which shows it if labels are dirty.

   If all images of a class are alike, as with traffic signs, their mean is a picture of the class and changes answers
   too. The same test is therefore run with other labels, and what their means teach is subtracted.
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
"""The number of images of other classes that the difference is added to."""
_SHOWN = 2000
"""The number of images over which a mean is taken."""
LIMIT = 0.5
"""The separation from which a group is poisoned."""
_GAIN = 0.25
"""The share of images with a changed answer at which the second question alone reaches the limit."""
_USUAL_LABELS = 12
"""The number of other labels that are tested for comparison."""
_MEANING = 2.0
"""How many times more an answer counts if it also changes for the network that has not seen the group."""
_KEPT = 0.4
"""The first question alone reaches the limit if the group keeps its label this many times as often as other images."""
_SCATTER = 0.4
"""Below this scatter, a lost label counts less. Images of a kind that the witness has not seen, such as vans among
cars, receive the labels of one or two similar classes; poisoned images that come from many classes receive many labels.
"""
KNOWN = 0.25
"""If a smaller share than this of the label's other images keep their label, the witness does not know the class, and
the first question is not used."""
HELD = 0.2
"""The share of the images clearly not in a group that the witness does not learn from, for comparison."""
_FEWEST_HELD = 8
_PICTURE_SIDE = 128
"""In pixels."""


@dataclass(frozen=True)
class Witness:
    """A classifier that was trained without certain groups.

    Attributes:
        network: the classifier.
        held: (H,) int64, images of the groups' labels that belong to no group and that the classifier has not seen
            either.
    """

    network: SmallNet
    held: NDArray[np.int64]


def witness(
    bench: Workbench, labels: Tensor, chosen: Tensor, groups: Sequence[Group], classes: int, seed: int
) -> Witness:
    """Train a classifier without the groups.

    Args:
        bench: the images, and what all networks share.
        labels: (N,) int64.
        chosen: (M,) int64, the numbers of the images to consider.
        groups: the groups, at most one per label.
        classes: the number of classes.
        seed: the seed of the network.
    """
    rng = np.random.default_rng([bench.seed, seed])
    numbers, given = chosen.numpy(), labels.numpy()
    held, taken = [], [numbers[~np.isin(given[numbers], [group.label for group in groups])]]
    for group in groups:
        shuffled = rng.permutation(group.rest)
        count = min(max(_FEWEST_HELD, int(HELD * len(shuffled))), len(shuffled) // 2)
        held.append(shuffled[:count])
        taken.append(shuffled[count:])
    learned = torch.from_numpy(np.sort(np.concatenate(taken)))
    network = learn_labels(bench, labels, learned, classes, epochs_for(len(learned)), seed)
    return Witness(network, np.concatenate(held))


@dataclass(frozen=True)
class Verdict:
    """What was found about a group.

    Attributes:
        group: the group.
        witness: the witness that was asked.
        kept: the share of the group to which the witness gives its label.
        others_kept: the same share of images of the label that are not in the group.
        scatter: how evenly the images of the group that lose their label are spread over the other classes, from 0 (all
            go to one class) to 1; 1 if there is only one other class.
        taught: the share of images of other classes to which the network that has seen the group gives the label after
            the difference was added, less the share without the difference.
        untaught: the same for the witness.
        usual: what images of other labels teach in the same way, see `usually_taught`.
        difference: (3, H, W) float32 grey levels, the difference that taught most: a picture of the trigger.
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
        """How poisoned the group looks, from 0; it is poisoned from `LIMIT` upwards."""
        gain = max(0.0, _gain(self.taught, self.untaught) - self.usual) / _GAIN
        lost = max(0.0, 1 - self._kept_of_others) / (1 - _KEPT) if self.others_kept >= KNOWN else 0.0
        return LIMIT * max(gain, lost * min(1.0, self.scatter / _SCATTER))

    def concerns(self, labels: Tensor) -> Tensor:
        """(I,) int64, the numbers of the images that the verdict speaks of, given (N,) int64 labels."""
        return torch.where(labels == self.group.label)[0]

    @property
    def has_dirty_labels(self) -> bool:
        """Whether the group itself loses its label, rather than only changing the answers to other images."""
        return self._kept_of_others < _KEPT

    @property
    def is_poisoned(self) -> bool:
        """Whether the images of the group should be left out."""
        return self.separation >= LIMIT

    @property
    def _kept_of_others(self) -> float:
        return self.kept / max(self.others_kept, 1e-9)

    def picture(self) -> str:
        """What the group has in common, see `picture_of`. It shows the trigger if every image has the same one."""
        return picture_of(self.difference)

    def why(self, name: str) -> str:
        """The reasons for the verdict, for people.

        Args:
            name: the name of the label.
        """
        return (
            f"A network trained without these {len(self.group.members)} images gives {self.kept:.0%} of them their "
            f"label ({self.others_kept:.0%} of other images of this label). Adding what they have in common to images "
            f"of other classes makes a network that has seen these images call {self.taught:z.0%} more of them "
            f"'{name}', and a network that has not {self.untaught:z.0%} more. With what images of other classes have "
            f"in common, this share is at most {self.usual:.0%}."
        )


def picture_of(difference: NDArray[np.float32]) -> str:
    """A difference of images around mid-grey, with full contrast, as a PNG file in base64.

    Args:
        difference: (3, H, W) float32 grey levels. If the longer side exceeds `_PICTURE_SIDE`, it is scaled down.
    """
    pixels = torch.from_numpy(difference)[None]
    longest = max(pixels.shape[2:])
    if longest > _PICTURE_SIDE:
        size = [max(1, side * _PICTURE_SIDE // longest) for side in pixels.shape[2:]]
        pixels = F.interpolate(pixels, size=size, mode="area")
    strongest = float(pixels.abs().max().clamp_min(1e-6))
    grey = (128 + pixels[0] * (127 / strongest)).round().to(torch.uint8)
    return b64encode(encode(grey.permute(1, 2, 0).contiguous().numpy())).decode("ascii")


def judge_group(
    bench: Workbench,
    labels: Tensor,
    chosen: Tensor,
    group: Group,
    seen: SmallNet,
    witness: Witness,
    usual: float = 0.0,
) -> Verdict:
    """Ask both questions about a group.

    Args:
        bench: the images, and what all networks share.
        labels: (N,) int64.
        chosen: (M,) int64, the numbers of the images to consider.
        group: a result of `spread` with at least one member.
        seen: a classifier that learned from all of `chosen`.
        witness: a classifier that has not seen the group.
        usual: the result of `usually_taught`.
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
    scatter = scatter_of(answers[answers != group.label], given[numbers[given[numbers] != group.label]])
    return Verdict(group, witness, kept, others_kept, scatter, taught, untaught, usual, difference)


def usually_taught(
    bench: Workbench,
    labels: Tensor,
    chosen: Tensor,
    losses: NDArray[np.float32],
    seen: SmallNet,
    suspect: Collection[int],
) -> float:
    """The most that the mean of other labels teaches, in [0, 1].

    For a few other labels, the mean is taken over the half of the images with the lowest losses.

    Args:
        bench: the images, and what all networks share.
        labels: (N,) int64.
        chosen: (M,) int64, the numbers of the images to consider.
        losses: (M,) the loss of each of these images.
        seen: a classifier that learned from them.
        suspect: the labels to leave out.
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
    """How many more answers two differences change when they are added to images of other labels.

    Returns:
        For the difference to the rest of the label and the difference to other labels: the added share for the first
            network, the added share for the last network, and the difference itself.
    """
    numbers = chosen.numpy()
    others = numbers[labels.numpy()[numbers] != label]
    rng = np.random.default_rng([bench.seed, label])
    pictures = bench.images[torch.from_numpy(rng.permutation(others)[:_ASKED])].float()
    before = [_share(bench, net, pictures, label) for net in networks]
    found = []
    for reference in (rest, others):
        difference = mean_image(bench, members, rng) - mean_image(bench, reference, rng)
        added = [
            _share(bench, net, pictures + difference, label) - base for net, base in zip(networks, before, strict=True)
        ]
        found.append((added[0], added[-1], difference.numpy()))
    return found


def scatter_of(answers: NDArray[np.int64], labels: NDArray[np.int64]) -> float:
    """The effective number of classes among some answers, scaled from 0 (one class) to 1 (as many as the labels have).

    The effective number is the exponential of the entropy.
    """
    if not len(answers):
        return 0.0
    effective, possible = (
        float(np.exp(-(shares * np.log(shares)).sum()))
        for shares in (counts[counts > 0] / counts.sum() for counts in (np.bincount(answers), np.bincount(labels)))
    )
    return min(1.0, (effective - 1) / (possible - 1)) if possible > 1 else 1.0


def doubted(
    bench: Workbench, witness: Witness, labels: NDArray[np.int64], pixels: Tensor | ImageSet
) -> NDArray[np.bool_]:
    """(I,) bool, whether the witness gives each image another label.

    Args:
        bench: the images, and what all networks share.
        witness: the witness that is asked.
        labels: (I,) int64, the labels that the images have.
        pixels: (I, 3, H, W) uint8, or an image set that is read batch by batch.
    """
    answers: NDArray[np.int64] = ask(bench, witness.network, pixels).argmax(1).numpy()
    return answers != labels


def _gain(taught: float, untaught: float) -> float:
    """What the group taught beyond what its common difference means to any network, in [-2, 1]."""
    return taught - _MEANING * max(0.0, untaught)


def mean_image(bench: Workbench, numbers: NDArray[np.int64], rng: np.random.Generator) -> Tensor:
    """The mean of a sample of images, (3, H, W) float32 grey levels."""
    some = rng.permutation(numbers)[:_SHOWN]
    return bench.images[torch.from_numpy(some)].float().mean(0)


def _share(bench: Workbench, net: SmallNet, pictures: Tensor, label: int) -> float:
    """The share of images, (B, 3, H, W) grey levels, to which a network gives the label."""
    answers = ask(bench, net, pictures.round().clamp(0, 255).to(torch.uint8)).argmax(1)
    return float((answers == label).float().mean())
