"""Grow a few seeds to the whole group.

This step finds out what the seeds have in common, and which other images of their label have it too.

A network with one output learns to tell the seeds from images of other labels *and* from images of the same label that
are most likely clean, so that the label itself is no answer. The images of the label that the network accepts are the
seeds of the second round. No network judges an image that it learned from: the images are divided into two halves, and
each half is judged by the network that learned from the other.

Long rounds matter more than many rounds. A short round hardly learns a faint trigger, and the images that it accepts
then mislead the next round.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffclean.detection.looks import Proposal
from diffclean.detection.mixture import valley
from diffclean.detection.network import SmallNet, Workbench, ask, learn_group

_WIDTH = 16
_STEPS = 300
"""The number of training steps of each network."""
_FULL_SET, _FEWEST_STEPS = 4000, 120
"""With at least `_FULL_SET` images, networks are trained for all of their steps. With fewer images they are trained for
proportionally fewer steps, but at least for `_FEWEST_STEPS`."""
_RECALL, _AGREEMENT = 0.3, 0.35
"""The smallest share of the seeds that must be found again, and the smallest overlap of two rounds. Ordinary mistakes
have nothing in common and stay below both."""
_HOPELESS = 0.03
"""If the first network finds a smaller share of the seeds again than this, the second could hardly compensate for it,
so it is not trained."""
_ROUNDS, _OVERSIZED_ROUNDS = 3, 5
_FASTEST, _OVERSIZED_FASTEST = 4, 2
"""The largest factor by which the number of seeds may grow in a round. The images with the highest scores become seeds
first, so that a mistake does not spread."""
_SETTLED = 0.9
"""If two rounds agree to at least this degree, no further round takes place."""
_REFINE_STEPS = 400
_REFINE_WIDTH = 24
_REFINE_ROUNDS = (2, 4)
"""The fewest and the most rounds. After the fewest, there is another round only if the last one made the group grow by
more than `_GROWN`."""
_GROWN = 1.03
_ACCEPTED = 0.99
"""An image is accepted if its score is above that of this share of the images of *other* labels, which do not belong to
the group."""
_REFINE_ACCEPTED, _DOUBTED_ACCEPTED = 0.98, 0.8
"""The same share once the label is known to be poisoned, and the smallest share for an image whose label is doubted:
see `_doubted_share`."""
_UNDOUBTED = 0.1
"""The quantile of the scores of accepted doubted images that the score of an image whose label is not doubted must
exceed."""
_MARGIN = 1.3
"""This multiple of the accepted images is treated as the group and left out of the rest, because the images ranked next
may belong to it too."""
_REFINE_MARGIN = 1.1
_LEAST_LEFT = 0.35
"""At least this share of a label's images is kept as the rest, unless the label is oversized."""
_USUAL_LEFT = 0.5
"""If the label is oversized, at most this multiple of the usual number of images of a label is assumed to be clean."""


@dataclass(frozen=True)
class Group:
    """Images of one label that have something in common.

    Attributes:
        proposal: the proposal that the group was grown from.
        scores: (N,) float64, the logits of all images, each from a network that did not learn from the image.
        limit: an image of the label is accepted if its score is above this limit.
        members: (G,) int64, the accepted images of the label.
        rest: (R,) int64, the images of the label that are clearly not accepted.
        networks: the two networks of the last round.
        doubted_limit: the limit for an image whose label is doubted.
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
        """The class of the group's images."""
        return self.proposal.label


def spread(bench: Workbench, labels: Tensor, chosen: Tensor, proposal: Proposal, seed: int) -> Group | None:
    """Find the group that the seeds of a proposal belong to, or None if the seeds have nothing in common.

    Args:
        bench: the images, and what all networks share.
        labels: (N,) int64.
        chosen: (M,) int64, the numbers of the images to consider; images that are listed already are not among them.
        proposal: a result of `looks.proposals`.
        seed: the seed of the networks.
    """
    round_ = _Round(bench, labels, chosen, proposal, seed, _WIDTH, _STEPS)
    seeds, clean = proposal.seeds, proposal.clean
    agreement, before = 0.0, np.zeros(0, np.int64)
    rounds, fastest = (_OVERSIZED_ROUNDS, _OVERSIZED_FASTEST) if proposal.oversized else (_ROUNDS, _FASTEST)
    for number in range(rounds):
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
            if agreement >= _SETTLED and len(members) <= fastest * len(seeds):
                break
        count = int(np.clip(len(members), len(seeds), fastest * len(seeds)))
        seeds, clean, before = ranked[:count], rest, members
    if agreement < _AGREEMENT:
        return None
    return Group(proposal, scores, limit, members, rest, networks)


def refined(
    bench: Workbench,
    labels: Tensor,
    chosen: Tensor,
    group: Group,
    doubted: NDArray[np.bool_],
    doubted_clean: float,
    seed: int,
) -> Group:
    """Find the same group more thoroughly, once its label is known to be poisoned.

    Two kinds of evidence add up: an image whose label is doubted needs a lower score to be accepted.

    Args:
        bench: the images, and what all networks share.
        labels: (N,) int64.
        chosen: (M,) int64, the numbers of the images to consider.
        group: a result of `spread`.
        doubted: (N,) bool, the images whose label makes it more likely that they belong to the group: where labels are
            dirty, the images to which a network that has not learned the trigger gives another label.
        doubted_clean: the share of clean images of the label that it doubts as well, in [0, 1].
        seed: the seed of the networks.
    """
    if doubted[group.members].any():  # members whose label is not doubted are mostly clean
        group = replace(group, members=group.members[doubted[group.members]])
    fewest, most = _REFINE_ROUNDS
    for number in range(most):
        before = len(group.members)
        round_ = _Round(bench, labels, chosen, group.proposal, seed + number, _REFINE_WIDTH, _REFINE_STEPS)
        scores, networks = _joined(*round_.halves(group.members, group.rest))
        shares = (_REFINE_ACCEPTED, _doubted_share(doubted_clean))
        limit, doubted_limit = (round_.limit(scores, share) for share in shares)
        ranked = round_.ranked(scores)
        surely = scores[ranked[doubted[ranked] & (scores[ranked] > doubted_limit)]]
        if len(surely):
            limit = max(limit, float(np.quantile(surely, _UNDOUBTED)))
        limit, doubted_limit = (min(one, round_.between(scores)) for one in (limit, doubted_limit))
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
        if number + 1 >= fewest and len(members) <= _GROWN * before:
            break
    return group


def _doubted_share(doubted_clean: float) -> float:
    """The share of other images that a doubted image must surpass.

    The more clean images of the label are doubted, the less a doubt says. The share is such that doubts add no more
    clean images of the label to the group than are expected in it anyway.
    """
    return 1 - min(1 - _DOUBTED_ACCEPTED, (1 - _REFINE_ACCEPTED) / max(doubted_clean, 1e-9))


@dataclass(frozen=True)
class _Half:
    """What a network learned from one half of the images, and its judgement of the other half.

    Attributes:
        scores: (N,) float64, logits; -inf for images that were not judged.
        network: the network that gave the scores.
    """

    scores: NDArray[np.float64]
    network: SmallNet


def _joined(first: _Half, second: _Half) -> tuple[NDArray[np.float64], tuple[SmallNet, SmallNet]]:
    """(N,) float64 logits, -inf for images that were not judged, and the two networks."""
    return np.maximum(first.scores, second.scores), (first.network, second.network)


@dataclass(frozen=True)
class _Round:
    """Two networks, each of which judges the half that the other learned from."""

    bench: Workbench
    labels: Tensor
    chosen: Tensor
    proposal: Proposal
    seed: int
    width: int
    steps: int

    def halves(self, seeds: NDArray[np.int64], clean: NDArray[np.int64]) -> Iterator[_Half]:
        """Learn from one half of the images and judge the other, then the reverse; each half is computed on demand."""
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
        """The score below which a share of the judged images of other labels lies."""
        numbers = self.chosen.numpy()
        others = scores[numbers[self.labels.numpy()[numbers] != self.proposal.label]]
        return float(np.quantile(others[np.isfinite(others)], accepted))

    def between(self, scores: NDArray[np.float64]) -> float:
        """The score between the two peaks of the label's scores; infinite if there are no two peaks.

        It finds the group where images of other labels carry the trigger too, as the covers of adaptive attacks do:
        their high scores raise `limit`. It never lies below the scores of most images of other labels.
        """
        own = scores[self.ranked(scores)]
        found = valley(own[np.isfinite(own)], self.limit(scores, _REFINE_ACCEPTED))
        return max(found, self.limit(scores, _DOUBTED_ACCEPTED))

    def recall(self, scores: NDArray[np.float64], seeds: NDArray[np.int64]) -> float:
        """The share of the judged seeds that is accepted, in [0, 1]."""
        judged = scores[seeds][np.isfinite(scores[seeds])]
        return float((judged > self.limit(scores, _ACCEPTED)).mean()) if len(judged) else 0.0

    def ranked(self, scores: NDArray[np.float64]) -> NDArray[np.int64]:
        """The images of the label, ranked from the most suspect."""
        numbers = self.chosen.numpy()
        own = numbers[self.labels.numpy()[numbers] == self.proposal.label]
        return own[np.argsort(-scores[own], kind="stable")]

    def rest(self, ranked: NDArray[np.int64], members: int, margin: float = _MARGIN) -> NDArray[np.int64]:
        """The images of the label, ranked from the most suspect, that are clearly not among the first `members`."""
        left_out = min(int(margin * members) + 4, int((1 - _LEAST_LEFT) * len(ranked)))
        if self.proposal.oversized:
            left_out = max(left_out, len(ranked) - int(_USUAL_LEFT * self.proposal.usual))
        return ranked[left_out:]

    def _parted(self, *parts: NDArray[np.int64]) -> NDArray[np.int64]:
        """(N,) 0 or 1, the half of each image; seeds and clean images are divided evenly."""
        rng = np.random.default_rng([self.bench.seed, self.seed])
        half = rng.integers(0, 2, len(self.labels))
        for part in parts:
            half[part] = rng.permutation(len(part)) % 2
        return half
