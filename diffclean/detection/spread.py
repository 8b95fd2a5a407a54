"""From a few seeds to the whole group.

What do the seeds have in common, and which other images of their label have it too?

A network with one output learns the seeds against images of other labels *and* against images of the same label that
are most likely clean, so that the label itself is no answer. What it accepts within the label are the seeds of the next
round. Each image is judged by a network that has not seen it: the images are parted into two halves, and each half is
judged by what was learned on the other.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffclean.detection.looks import Proposal, clean_count, usual_size
from diffclean.detection.network import SmallNet, Workbench, ask, learn_group

_WIDTH = 16
_STEPS = (80, 80, 100, 120, 140)
"""Of each network, round after round; the first two always take place."""
_FULL_SET, _FEWEST_STEPS = 4000, 64
"""From so many images on networks are trained for all of their steps; fewer images take fewer, down to so many."""
_GROWS = 1.15
"""A further round takes place where the last one made the group larger by this factor."""
_REFINE_STEPS = 240
_REFINE_WIDTH = 24
_REFINE_ROUNDS = 3
_ACCEPTED = 0.99
"""An image is accepted that is surer than this share of the images of *other* labels, which are not of the group."""
_REFINE_ACCEPTED = 0.98
_NO_WITNESS = 0.5
"""Share of hardly suspect images that are doubted from which on doubt says nothing."""
_DOUBTED_ACCEPTED = 0.8
"""As `_ACCEPTED`, for an image whose label is doubted."""


@dataclass(frozen=True)
class Group:
    """Images of one label that have something in common.

    Attributes:
        proposal: where it comes from.
        scores: (N,) float64, logits of all images, each by a network that did not learn from it.
        limit: the score from which on an image of the label is accepted.
        members: (G,) int64, the accepted images of the label.
        clean: (C,) int64, the images of the label that are least of the group, taken for clean.
        hardly: (H,) int64, those that come next: hardly suspect, and not taken for clean either.
        recall: share in [0, 1] of the seeds that were accepted by a network that had not seen them.
        networks: the two of the last round.
    """

    proposal: Proposal
    scores: NDArray[np.float64]
    limit: float
    members: NDArray[np.int64]
    clean: NDArray[np.int64]
    hardly: NDArray[np.int64]
    recall: float
    networks: tuple[SmallNet, SmallNet]

    @property
    def label(self) -> int:
        """The class of its images."""
        return self.proposal.label


def spread(bench: Workbench, labels: Tensor, chosen: Tensor, proposal: Proposal, seed: int) -> Group:
    """Find the group of a proposal's seeds.

    Args:
        bench: the images.
        labels: (N,) int64.
        chosen: (M,) int64, the images that count; what is listed already is not among them.
        proposal: from `looks.proposals`.
        seed: of the networks.
    """
    seeds, clean = proposal.seeds, proposal.clean
    recall: float | None = None
    size = len(seeds)
    for number, steps in enumerate(_STEPS):
        round_ = _Round(bench, labels, chosen, proposal.label, seed + number, _WIDTH)
        group = round_.group(proposal, seeds, clean, steps, _ACCEPTED, recall)
        recall = group.recall
        if number > 0 and len(group.members) < _GROWS * size:
            break
        size = len(group.members)
        seeds, clean = _next(group, labels, chosen, len(seeds))
    return group


def refined(
    bench: Workbench, labels: Tensor, chosen: Tensor, group: Group, doubted: NDArray[np.bool_], seed: int
) -> Group:
    """The same group, found more thoroughly: for a label that is known to be poisoned.

    Args:
        bench: the images.
        labels: (N,) int64.
        chosen: (M,) int64, the images that count.
        group: from `spread`.
        doubted: (N,) bool, images whose label speaks for a place in the group: where labels are dirty, those to which a
            network that has not learned the trigger gives another label.
        seed: of the networks.
    """
    for number in range(_REFINE_ROUNDS):
        group = _doubting(group, labels, chosen, doubted)
        seeds, clean = _next(group, labels, chosen, len(group.members))
        round_ = _Round(bench, labels, chosen, group.label, seed + number, _REFINE_WIDTH)
        group = round_.group(group.proposal, seeds, clean, _REFINE_STEPS, _REFINE_ACCEPTED, group.recall)
    return _doubting(group, labels, chosen, doubted)


def _doubting(group: Group, labels: Tensor, chosen: Tensor, doubted: NDArray[np.bool_]) -> Group:
    """The two kinds of evidence added up: an image whose label is doubted needs a lower score to be accepted.

    A network that also doubts the images that are hardly suspect is no witness, and is not heard.
    """
    numbers = chosen.numpy()
    is_own = (labels[chosen] == group.label).numpy()
    own, others = numbers[is_own], numbers[~is_own]
    scores = group.scores.copy()
    if not len(group.hardly) or doubted[group.hardly].mean() > _NO_WITNESS:
        return group
    scores[doubted] += group.limit - np.quantile(group.scores[others], _DOUBTED_ACCEPTED)
    ranked = own[np.argsort(scores[own], kind="stable")]
    clean, hardly = ranked[: len(group.clean)], ranked[len(group.clean) : 2 * len(group.clean)]
    members = np.setdiff1d(own[scores[own] > group.limit], clean)
    return replace(group, scores=scores, members=members, clean=clean, hardly=hardly)


def _next(group: Group, labels: Tensor, chosen: Tensor, fewest: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Seeds and clean images of the next round: never fewer seeds than before."""
    own = chosen.numpy()[(labels[chosen] == group.label).numpy()]
    ranked = own[np.argsort(-group.scores[own], kind="stable")]
    count = min(max(len(group.members), fewest), len(ranked) - 4)
    return ranked[:count], ranked[count:][-len(group.clean) :]


@dataclass(frozen=True)
class _Round:
    """Two networks, each judging the half that the other learned from."""

    bench: Workbench
    labels: Tensor
    chosen: Tensor
    label: int
    seed: int
    width: int

    def group(
        self,
        proposal: Proposal,
        seeds: NDArray[np.int64],
        clean: NDArray[np.int64],
        steps: int,
        accepted: float,
        recall: float | None,
    ) -> Group:
        numbers = self.chosen.numpy()
        steps = max(_FEWEST_STEPS, round(steps * min(1.0, len(numbers) / _FULL_SET)))
        own = numbers[(self.labels[self.chosen] == self.label).numpy()]
        others = np.setdiff1d(numbers, own)
        half = self._halves(seeds, clean)
        scores = np.full(len(self.labels), -np.inf)
        networks = []
        for side in (0, 1):
            learned = [torch.from_numpy(part[half[part] != side]) for part in (seeds, clean, others)]
            seed = 2 * self.seed + side
            net = learn_group(self.bench, learned[0], learned[1], learned[2], steps, seed, self.width)
            judged = numbers[half[numbers] == side]
            scores[judged] = ask(self.bench, net, self.bench.images[torch.from_numpy(judged)])[:, 0].double().numpy()
            networks.append(net)
        limit = float(np.quantile(scores[others], accepted))
        # How much of the first seeds was found again tells whether they share anything; later ones were chosen by it.
        found = float((scores[seeds] > limit).mean()) if recall is None else recall
        ranked = own[np.argsort(scores[own], kind="stable")]
        count = clean_count(len(own), usual_size(self.labels[self.chosen]))
        least, hardly = ranked[:count], ranked[count : 2 * count]
        members = np.setdiff1d(own[scores[own] > limit], least)
        hardly = np.setdiff1d(hardly, members)
        return Group(proposal, scores, limit, members, least, hardly, found, (networks[0], networks[1]))

    def _halves(self, *parts: NDArray[np.int64]) -> NDArray[np.int64]:
        """(N,) 0 or 1; seeds and clean images are parted evenly."""
        rng = np.random.default_rng([self.bench.seed, self.seed])
        half = rng.integers(0, 2, len(self.labels))
        for part in parts:
            half[part] = rng.permutation(len(part)) % 2
        return half
