"""Grow a few seeds to the whole group.

This step finds out what the seeds have in common, and which other images of their label have it too.

A network with one output learns to tell the seeds from images of other labels *and* from images of the same label that
are most likely clean, so that the label itself is no answer. The images of the label that the network accepts are the
seeds of the second round. No network judges an image that it learned from: the images are divided into two halves, and
each half is judged by the network that learned from the other. Where there are few images, they are divided into more
and smaller folds, so that networks learn from more of them.

Long rounds matter more than many rounds. A short round hardly learns a faint trigger, and the images that it accepts
then mislead the next round.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffclean.detection.looks import Proposal
from diffclean.detection.mixture import valley
from diffclean.detection.network import SmallNet, Workbench, ask, learn_group, together

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
REFINE_ROUNDS, AGAIN_ROUNDS = (2, 4), (1, 2)
"""The fewest and the most rounds, for a group that is refined for the first time and for one that was refined before.
After the fewest, there is another round only if the last one made the group grow by more than `GROWN`."""
GROWN = 1.03
_SMALL_GROUP, _FEW_SEEDS, _SMALL_FOLDS = 150, 60, 4
"""A group with fewer members than the first is refined in so many folds, and fewer seeds of an oversized label than the
second are spread in so many. From half of them, a network would learn the few images by heart."""
_ACCEPTED = 0.99
"""An image is accepted if its score is above that of this share of the images of *other* labels, which do not belong to
the group."""
_REFINE_ACCEPTED = 0.98
"""The same share once the label is known to be poisoned. For an image whose label is doubted, see `_doubted_share`."""
_LEAST_BETWEEN = 0.8
"""A limit between two peaks lies above the scores of at least this share of the images of other labels."""
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
        networks: the networks of the last round, one for each fold.
        doubted_limit: the limit for an image whose label is doubted.
    """

    proposal: Proposal
    scores: NDArray[np.float64]
    limit: float
    members: NDArray[np.int64]
    rest: NDArray[np.int64]
    networks: tuple[SmallNet, ...]
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
        few = proposal.oversized and len(seeds) < _FEW_SEEDS
        tasks = replace(round_, seed=seed + number, count=_SMALL_FOLDS if few else 2).folds(seeds, clean)
        judged = [tasks.pop(0)()] if number == 0 else []
        if judged and round_.recall(judged[0].scores, seeds) < _HOPELESS:
            return None
        scores, networks = _joined(*judged, *together(bench, tasks))
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
    rounds: tuple[int, int] = REFINE_ROUNDS,
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
        rounds: the fewest and the most rounds.
    """
    if doubted[group.members].any():  # members whose label is not doubted are mostly clean
        group = replace(group, members=group.members[doubted[group.members]])
    fewest, most = rounds
    for number in range(most):
        before = len(group.members)
        count = _SMALL_FOLDS if before < _SMALL_GROUP else 2
        round_ = _Round(bench, labels, chosen, group.proposal, seed + number, _REFINE_WIDTH, _REFINE_STEPS, count)
        scores, networks = _joined(*together(bench, round_.folds(group.members, group.rest)))
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
        if number + 1 >= fewest and len(members) <= GROWN * before:
            break
    return group


def _doubted_share(doubted_clean: float) -> float:
    """The share of other images that a doubted image must surpass.

    The more clean images of the label are doubted, the less a doubt says. The share is such that doubts add no more
    clean images of the label to the group than are expected in it anyway; where hardly any is doubted, a doubt alone
    is enough.
    """
    return 1 - min(1.0, (1 - _REFINE_ACCEPTED) / max(doubted_clean, 1e-9))


@dataclass(frozen=True)
class _Fold:
    """A network, and its judgement of the images of a fold, from which it did not learn.

    Attributes:
        scores: (N,) float64, logits; -inf for images that were not judged.
        network: the network that gave the scores.
    """

    scores: NDArray[np.float64]
    network: SmallNet


def _joined(*folds: _Fold) -> tuple[NDArray[np.float64], tuple[SmallNet, ...]]:
    """(N,) float64 logits, -inf for images that were not judged, and the networks."""
    return np.max([fold.scores for fold in folds], 0), tuple(fold.network for fold in folds)


@dataclass(frozen=True)
class _Round:
    """Networks, each of which judges the fold that it did not learn from."""

    bench: Workbench
    labels: Tensor
    chosen: Tensor
    proposal: Proposal
    seed: int
    width: int
    steps: int
    count: int = 2

    def folds(self, seeds: NDArray[np.int64], clean: NDArray[np.int64]) -> list[Callable[[], _Fold]]:
        """For each fold, a task: let a network that learns from the others judge it."""
        return [partial(self._fold, number, (seeds, clean)) for number in range(self.count)]

    def _fold(self, number: int, of_label: tuple[NDArray[np.int64], NDArray[np.int64]]) -> _Fold:
        numbers = self.chosen.numpy()
        steps = max(_FEWEST_STEPS, round(self.steps * min(1.0, len(numbers) / _FULL_SET)))
        others = numbers[self.labels.numpy()[numbers] != self.proposal.label]
        fold = self._parted(*of_label)
        learned = [torch.from_numpy(part[fold[part] != number]) for part in (*of_label, others)]
        seed = self.count * self.seed + number
        net = learn_group(self.bench, learned[0], learned[1], learned[2], steps, seed, self.width)
        judged = numbers[fold[numbers] == number]
        scores = np.full(len(self.labels), -np.inf)
        scores[judged] = ask(self.bench, net, self.bench.images[torch.from_numpy(judged)])[:, 0].double().numpy()
        return _Fold(scores, net)

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
        return max(found, self.limit(scores, _LEAST_BETWEEN))

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
        """(N,) the number of the fold of each image; seeds and clean images are divided evenly."""
        rng = np.random.default_rng([self.bench.seed, self.seed])
        fold = rng.integers(0, self.count, len(self.labels))
        for part in parts:
            fold[part] = rng.permutation(len(part)) % self.count
        return fold
