"""From a few seeds to the whole group.

What do the seeds have in common, and which other images of their label have it too?

A network with one output learns the seeds against images of other labels *and* against images of the same label that
are most likely clean, so that the label itself is no answer. What it accepts within the label are the seeds of the
second round. Each image is judged by a network that has not seen it: the images are parted into two halves, and each
half is judged by what was learned on the other.

Long rounds matter more than many: a faint trigger is hardly learned in a short one, and what is accepted then misleads
the next.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffclean.detection.looks import Proposal
from diffclean.detection.network import SmallNet, Workbench, ask, learn_group

_WIDTH = 16
_STEPS = 300
"""Of each network."""
_FULL_SET, _FEWEST_STEPS = 4000, 120
"""From so many images on networks are trained for all of their steps; fewer images take fewer, down to so many."""
_RECALL, _AGREEMENT = 0.3, 0.35
"""Least share of the seeds that is found again, and least overlap of two rounds: mistakes have nothing in common."""
_HOPELESS = 0.03
"""Where the first network finds a smaller share of the seeds again, the second could hardly make up for it, and its
training is saved."""
_ROUNDS, _OVERSIZED_ROUNDS = 3, 5
_FASTEST = 4
"""Times that the seeds may become more in a round: the surest are seeds first, so that a mistake does not spread."""
_SETTLED = 0.9
"""Agreement of two rounds from which on no further one takes place."""
_REFINE_STEPS = 400
_REFINE_WIDTH = 24
_REFINE_ROUNDS = 2
_ACCEPTED = 0.99
"""An image is accepted that is surer than this share of the images of *other* labels, which are not of the group."""
_REFINE_ACCEPTED, _DOUBTED_ACCEPTED = 0.98, 0.8
"""The same once the label is known to be poisoned, and for an image whose label is doubted."""
_UNDOUBTED = 0.1
"""Share of the doubted images that are accepted which an image whose label is not doubted must surpass."""
_MARGIN = 1.3
"""Times its accepted images that are left out as the group: those that come next may belong to it too."""
_REFINE_MARGIN = 1.1
_LEAST_LEFT = 0.35
"""Share of a label's images that is never left out, unless the label is oversized."""
_USUAL_LEFT = 0.5
"""Times the usual number of images of a label: no more are thought to be clean where the label is oversized."""


@dataclass(frozen=True)
class Group:
    """Images of one label that have something in common.

    Attributes:
        proposal: where it comes from.
        scores: (N,) float64, logits of all images, each by a network that did not learn from it.
        limit: the score from which on an image of the label is accepted.
        members: (G,) int64, the accepted images of the label.
        rest: (R,) int64, the images of the label that are surely not accepted.
        networks: the two of the last round.
        doubted_limit: as `limit`, for an image whose label is doubted.
    """

    proposal: Proposal
    scores: NDArray[np.float64]
    limit: float
    members: NDArray[np.int64]
    rest: NDArray[np.int64]
    networks: tuple[SmallNet, SmallNet]
    doubted_limit: float = np.inf

    @property
    def label(self) -> int:
        """The class of its images."""
        return self.proposal.label


def spread(bench: Workbench, labels: Tensor, chosen: Tensor, proposal: Proposal, seed: int) -> Group | None:
    """Find the group of a proposal's seeds; None where the seeds have nothing in common.

    Args:
        bench: the images.
        labels: (N,) int64.
        chosen: (M,) int64, the images that count; what is listed already is not among them.
        proposal: from `looks.proposals`.
        seed: of the networks.
    """
    round_ = _Round(bench, labels, chosen, proposal, seed, _WIDTH, _STEPS)
    seeds, clean = proposal.seeds, proposal.clean
    agreement, before = 0.0, np.zeros(0, np.int64)
    for number in range(_OVERSIZED_ROUNDS if proposal.oversized else _ROUNDS):
        halves = replace(round_, seed=seed + number).halves(seeds, clean)
        first = next(halves)
        if number == 0 and round_.recall(first.scores, seeds) < _HOPELESS:
            return None
        scores, networks = _joined(first, next(halves))
        limit = round_.limit(scores, _ACCEPTED)
        ranked = round_.ranked(scores)
        members = ranked[scores[ranked] > limit]
        rest = round_.rest(ranked, len(members))
        if number == 0:
            if round_.recall(scores, seeds) < _RECALL:
                return None
        else:
            agreement = len(np.intersect1d(before, members)) / max(1, len(np.union1d(before, members)))
            if agreement >= _SETTLED and len(members) <= _FASTEST * len(seeds):
                break
        count = int(np.clip(len(members), len(seeds), _FASTEST * len(seeds)))
        seeds, clean, before = ranked[:count], rest, members
    if agreement < _AGREEMENT:
        return None
    return Group(proposal, scores, limit, members, rest, networks)


def refined(
    bench: Workbench, labels: Tensor, chosen: Tensor, group: Group, doubted: NDArray[np.bool_], seed: int
) -> Group:
    """The same group, found more thoroughly: for a label that is known to be poisoned.

    Two kinds of evidence add up: an image whose label is doubted needs a lower score to be accepted.

    Args:
        bench: the images.
        labels: (N,) int64.
        chosen: (M,) int64, the images that count.
        group: from `spread`.
        doubted: (N,) bool, images whose label speaks for a place in the group: where labels are dirty, those to which a
            network that has not learned the trigger gives another label.
        seed: of the networks.
    """
    if doubted[group.members].any():  # those whose label is not doubted are mostly clean
        group = replace(group, members=group.members[doubted[group.members]])
    for number in range(_REFINE_ROUNDS):
        round_ = _Round(bench, labels, chosen, group.proposal, seed + number, _REFINE_WIDTH, _REFINE_STEPS)
        scores, networks = _joined(*round_.halves(group.members, group.rest))
        limit, doubted_limit = (round_.limit(scores, share) for share in (_REFINE_ACCEPTED, _DOUBTED_ACCEPTED))
        ranked = round_.ranked(scores)
        surely = scores[ranked[doubted[ranked] & (scores[ranked] > doubted_limit)]]
        if len(surely):
            limit = max(limit, float(np.quantile(surely, _UNDOUBTED)))
        above = scores - np.where(doubted, doubted_limit, limit)
        ranked = round_.ranked(above)
        members = ranked[above[ranked] > 0]
        if not len(members):
            return group
        group = replace(
            group,
            scores=scores,
            limit=limit,
            doubted_limit=doubted_limit,
            members=members,
            rest=round_.rest(ranked, len(members), _REFINE_MARGIN),
            networks=networks,
        )
    return group


@dataclass(frozen=True)
class _Half:
    """What was learned on one half of the images and judged of the other.

    Attributes:
        scores: (N,) float64, logits; -inf for what was not judged.
        network: that gave them.
    """

    scores: NDArray[np.float64]
    network: SmallNet


def _joined(first: _Half, second: _Half) -> tuple[NDArray[np.float64], tuple[SmallNet, SmallNet]]:
    """(N,) float64 logits, -inf for what does not count, and the networks."""
    return np.maximum(first.scores, second.scores), (first.network, second.network)


@dataclass(frozen=True)
class _Round:
    """Two networks, each judging the half that the other learned from."""

    bench: Workbench
    labels: Tensor
    chosen: Tensor
    proposal: Proposal
    seed: int
    width: int
    steps: int

    def halves(self, seeds: NDArray[np.int64], clean: NDArray[np.int64]) -> Iterator[_Half]:
        """Learn on one half of the images and judge the other, then the other way round; each when it is asked for."""
        numbers = self.chosen.numpy()
        steps = max(_FEWEST_STEPS, round(self.steps * min(1.0, len(numbers) / _FULL_SET)))
        others = numbers[self.labels.numpy()[numbers] != self.proposal.label]
        half = self._parted(seeds, clean)
        for side in (0, 1):
            learned = [torch.from_numpy(part[half[part] != side]) for part in (seeds, clean, others)]
            seed = 2 * self.seed + side
            net = learn_group(self.bench, learned[0], learned[1], learned[2], steps, seed, self.width)
            judged = numbers[half[numbers] == side]
            scores = np.full(len(self.labels), -np.inf)
            scores[judged] = ask(self.bench, net, self.bench.images[torch.from_numpy(judged)])[:, 0].double().numpy()
            yield _Half(scores, net)

    def limit(self, scores: NDArray[np.float64], accepted: float) -> float:
        """The score that a share of the images of other labels lies below, of those that were judged."""
        numbers = self.chosen.numpy()
        others = scores[numbers[self.labels.numpy()[numbers] != self.proposal.label]]
        return float(np.quantile(others[np.isfinite(others)], accepted))

    def recall(self, scores: NDArray[np.float64], seeds: NDArray[np.int64]) -> float:
        """The share of the seeds that is accepted, of those that were judged, in [0, 1]."""
        judged = scores[seeds][np.isfinite(scores[seeds])]
        return float((judged > self.limit(scores, _ACCEPTED)).mean()) if len(judged) else 0.0

    def ranked(self, scores: NDArray[np.float64]) -> NDArray[np.int64]:
        """The images of the label, the most suspect first."""
        numbers = self.chosen.numpy()
        own = numbers[self.labels.numpy()[numbers] == self.proposal.label]
        return own[np.argsort(-scores[own], kind="stable")]

    def rest(self, ranked: NDArray[np.int64], members: int, margin: float = _MARGIN) -> NDArray[np.int64]:
        """What of the label's images, the most suspect first, is surely not among the first so many."""
        left_out = min(int(margin * members) + 4, int((1 - _LEAST_LEFT) * len(ranked)))
        if self.proposal.oversized:
            left_out = max(left_out, len(ranked) - int(_USUAL_LEFT * self.proposal.usual))
        return ranked[left_out:]

    def _parted(self, *parts: NDArray[np.int64]) -> NDArray[np.int64]:
        """(N,) 0 or 1; seeds and clean images are parted evenly."""
        rng = np.random.default_rng([self.bench.seed, self.seed])
        half = rng.integers(0, 2, len(self.labels))
        for part in parts:
            half[part] = rng.permutation(len(part)) % 2
        return half
