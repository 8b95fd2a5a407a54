"""The default detector: isolate, spread, ask.

It needs no teacher, no variations, no clean data and no knowledge of the trigger.

1. *Isolate* (`looks`): a small network learns the labels. If a label has more than its share of the images with the
   lowest or the highest losses, some of these images become its seeds.
2. *Spread* (`spread`): networks learn what the seeds have in common and find the other images of the label that have it
   too. In clean data, seeds mostly have nothing in common, and the search ends here.
3. *Ask* (`verdict`): a network is trained without the remaining groups. A group is poisoned if it does not keep its
   label, or if its common difference teaches a backdoor.

Poisoned groups are completed and left out. The three steps are then repeated on the remaining images until nothing more
is found. At the end, `across` looks for poisoned images that are spread over many labels, and `flooded` for a label
with images of many classes that have nothing in common that small networks could learn. In a large data set, networks
learn from a sample of the images, and then every image of a poisoned label is judged.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffclean.data.suspects import JudgedClass
from diffclean.datasets.samples import Samples
from diffclean.detection.across import Contradiction, look_across
from diffclean.detection.base import Evidence, Judgement
from diffclean.detection.flooded import Flood, look_for_floods
from diffclean.detection.looks import FEWEST, Kind, Look, Proposal, look, proposals
from diffclean.detection.network import Workbench, ask, together
from diffclean.detection.spread import AGAIN_ROUNDS, GROWN, REFINE_ROUNDS, refined, spread
from diffclean.detection.verdict import LIMIT, Verdict, doubted, judge_group, usually_taught, witness
from diffclean.errors import UsageError
from diffclean.progress import Progress

_FIRST_LABELS = 2
"""The number of candidates at either end of the losses. It doubles after a pass that found as many poisoned labels."""
_PASSES = 5
_FEW, _WITNESSES = 0.03, 3
"""If a group has at most this share of all images, new witnesses are asked. The most witnesses, with the first."""
_SCALE = 1.5
"""An image this many logits above the limit is poisoned with a probability of 73 %."""


@dataclass(frozen=True)
class Isolate:
    """The default detector: isolate, spread, ask.

    Args:
        sample: the largest number of images that the networks learn from and that are held in memory. Further images
            are read from disk when they are judged.
        memory: the largest number of bytes that these images may take; large images are fewer therefore.
    """

    sample: int = 50_000
    memory: int = 1_250_000_000

    name: ClassVar[str] = "isolate"
    citation: ClassVar[str] = "own, 2026; its first step after Li et al. 2021, Anti-Backdoor Learning, arXiv 2110.11571"
    needs_teacher: ClassVar[bool] = False
    needs_variations: ClassVar[bool] = False
    needs_retrained: ClassVar[bool] = False

    def judge(self, evidence: Evidence, progress: Progress) -> Judgement:
        """See `Detector.judge`."""
        images = evidence.images
        classes = len(images.class_to_idx)
        if classes < 2:
            raise UsageError(
                "The data set has one class only.", "This detector compares classes: name a data set of two or more."
            )
        height, width = images.pixels.shape
        sample = _sample(images, min(self.sample, max(1, self.memory // (3 * height * width))), evidence.seed)
        pixels = torch.empty(len(sample), 3, height, width, dtype=torch.uint8)
        for part, batch in zip(pixels.split(4096), images.pixels.batches(sample.split(4096)), strict=True):
            part.copy_(batch)
        bench = Workbench(pixels, images.pixels.statistics(), evidence.device, evidence.seed, progress, evidence.stop)
        progress.begin("Looking for suspects", None)
        try:
            search = _Search(bench, images.labels[sample], classes)
            search.run()
        finally:
            progress.end()
        return _judgement(search, images, sample)


def _sample(images: Samples, most: int, seed: int) -> Tensor:
    """(M,) int64, the numbers of at most `most` images that have a label, in ascending order."""
    labelled = torch.where(images.labels >= 0)[0]
    if len(labelled) <= most:
        return labelled
    rng = np.random.default_rng(seed)
    return labelled[torch.from_numpy(np.sort(rng.permutation(len(labelled))[:most]))]


@dataclass
class _Search:
    """The passes over one sample.

    Attributes:
        bench: the images of the sample, and what all networks share.
        labels: (M,) int64.
        classes: the number of classes.
        listed: (M,) bool, the images found to be poisoned so far.
        found: the poisoned groups, after they were completed.
        floods: the labels that have received images of many classes.
        verdicts: for each label, the verdict with the highest separation.
        cleared: pairs of a label and the place of its seeds that need not be checked again.
    """

    bench: Workbench
    labels: Tensor
    classes: int
    listed: NDArray[np.bool_] = field(init=False)
    found: list[Verdict | Contradiction] = field(default_factory=list)
    floods: list[Flood] = field(default_factory=list)
    verdicts: dict[int, Verdict | Contradiction | Flood] = field(default_factory=dict)
    cleared: set[tuple[int, Kind]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.listed = np.zeros(len(self.labels), np.bool_)

    def run(self) -> None:
        """Run passes until nothing more is found.

        If the first pass finds nothing, a second pass checks the labels that come next, and the search ends if it finds
        nothing either.
        """
        most, seen = _FIRST_LABELS, None
        for number in range(_PASSES):
            seed = 1000 * (number + 1)
            left = torch.from_numpy(np.flatnonzero(~self.listed))
            first_try = seen is None
            if seen is None:
                seen = look(self.bench, self.labels, left, self.classes, seed)
            guilty = self._pass(seen, left, seed, most)
            if guilty:
                seen = None
                most *= 2 if len(guilty) >= most else 1
            elif self.found or not first_try:
                self._finish(seen, left, seed)
                return

    def _pass(self, seen: Look, left: Tensor, seed: int, most: int) -> list[Verdict]:
        candidates = _one_a_label(proposals(seen, self.labels, self.classes, most, self.cleared))
        spreads = [
            partial(spread, self.bench, self.labels, left, proposal, seed + 10 * (number + 1))
            for number, proposal in enumerate(candidates)
        ]
        groups = [group for group in together(self.bench, spreads) if group is not None]
        self.cleared |= {(one.label, one.kind) for one in candidates}
        if not groups:
            return []
        unseen = witness(self.bench, self.labels, left, groups, self.classes, seed + 1)
        suspect = [group.label for group in groups]
        usual = usually_taught(self.bench, self.labels, left, seen.late, seen.network, suspect)
        verdicts = [judge_group(self.bench, self.labels, left, group, seen.network, unseen, usual) for group in groups]
        for verdict in verdicts:
            self._note(verdict.group.label, verdict)
        guilty = [verdict for verdict in verdicts if verdict.is_poisoned]
        tasks = [
            partial(self._completed, verdict, left, seed + 500 + 10 * number) for number, verdict in enumerate(guilty)
        ]
        for verdict in together(self.bench, tasks):
            self.listed[verdict.group.members] = True
            self.found.append(verdict)
            self.cleared.discard((verdict.group.label, verdict.group.proposal.kind))
        return guilty

    def _completed(self, verdict: Verdict, left: Tensor, seed: int) -> Verdict:
        """Find the other images of a poisoned group.

        The witness has learned from the poisoned images that the group lacks. If the group is small, they are enough to
        teach it the trigger, and then it doubts few of them. So a new one is trained without the larger group.
        """
        verdict = self._refined(verdict, left, seed, REFINE_ROUNDS)
        for number in range(1, _WITNESSES):
            before = len(verdict.group.members)
            if not verdict.has_dirty_labels or before > _FEW * len(left):
                break
            unseen = witness(self.bench, self.labels, left, [verdict.group], self.classes, seed + number)
            verdict = self._refined(replace(verdict, witness=unseen), left, seed + 100 * number, AGAIN_ROUNDS)
            if len(verdict.group.members) <= GROWN * before:
                break
        return verdict

    def _refined(self, verdict: Verdict, left: Tensor, seed: int, rounds: tuple[int, int]) -> Verdict:
        held = verdict.witness.held
        held = held[self.labels.numpy()[held] == verdict.group.label]
        doubts = self.doubts(verdict)
        doubted_clean = float(doubts[held].mean()) if len(held) else 0.0
        whole = refined(self.bench, self.labels, left, verdict.group, doubts, doubted_clean, seed, rounds)
        return replace(verdict, group=whole)

    def _finish(self, seen: Look, left: Tensor, seed: int) -> None:
        """Look for what the search label by label cannot find."""
        across = look_across(self.bench, self.labels, left, seen, self.classes, seed + 700)
        if across is not None:
            for label in np.unique(self.labels.numpy()[across.group.members]).tolist():
                self._note(label, across)
            if across.is_poisoned:
                self.found.append(across)
                return
        for flood in look_for_floods(self.bench, self.labels, left, self.classes, seed + 800):
            self._note(flood.label, flood)
            if flood.is_poisoned:
                self.floods.append(flood)

    def doubts(self, verdict: Verdict | Contradiction) -> NDArray[np.bool_]:
        """(M,) bool, the images whose label makes it more likely that they belong to the group."""
        found = np.zeros(len(self.labels), np.bool_)
        if verdict.has_dirty_labels:
            own = verdict.concerns(self.labels)
            pixels = self.bench.images if len(own) == len(self.labels) else self.bench.images[own]
            found[own.numpy()] = doubted(self.bench, verdict.witness, self.labels[own].numpy(), pixels)
        return found

    def _note(self, label: int, verdict: Verdict | Contradiction | Flood) -> None:
        before = self.verdicts.get(label)
        if before is None or verdict.separation > before.separation:
            self.verdicts[label] = verdict


def _one_a_label(candidates: list[Proposal]) -> list[Proposal]:
    """Of several proposals for one label, keep the one with the largest share."""
    best: dict[int, Proposal] = {}
    for proposal in candidates:
        before = best.get(proposal.label)
        if before is None or proposal.share > before.share:
            best[proposal.label] = proposal
    return list(best.values())


def _judgement(search: _Search, images: Samples, sample: Tensor) -> Judgement:
    """Judge every image of the data set, including those that are not in the sample."""
    count = len(images.keys)
    scores, chances = np.zeros(count), np.zeros(count)
    suspects = np.zeros(count, np.bool_)
    place = np.full(count, -1)
    place[sample.numpy()] = np.arange(len(sample))
    judged = [
        (own := found.concerns(images.labels), _margins(search, images, own, place, found)) for found in search.found
    ]
    for flood in search.floods:
        own = torch.where(images.labels == flood.label)[0]
        judged.append((own, flood.margins(search.bench, images.chosen(own).pixels)))
    for own, margin in judged:
        chance = 1 / (1 + np.exp(-np.clip(margin / _SCALE, -50, 50)))
        scores[own] = np.maximum(scores[own], chance + np.maximum(0, margin) * 1e-3)
        chances[own] = np.maximum(chances[own], chance)
        suspects[own.numpy()[margin > 0]] = True
    return Judgement(scores, chances, suspects, _classes(search, images, suspects))


def _margins(
    search: _Search, images: Samples, own: Tensor, place: NDArray[np.int64], verdict: Verdict | Contradiction
) -> NDArray[np.float64]:
    """(I,) float64, how far the scores of all images that a verdict speaks of lie above the group's limit."""
    bench, group = search.bench, verdict.group
    scores, doubts = np.zeros(len(own)), np.zeros(len(own), np.bool_)
    inside = place[own.numpy()]
    known = inside >= 0
    scores[known] = group.scores[inside[known]]
    doubts[known] = search.doubts(verdict)[inside[known]]
    outside = own[torch.from_numpy(~known)]
    if len(outside):
        chosen = images.chosen(outside).pixels
        answers = torch.stack([ask(bench, net, chosen)[:, 0] for net in group.networks]).mean(0)
        scores[~known] = answers.double().numpy()
        if verdict.has_dirty_labels:
            doubts[~known] = doubted(bench, verdict.witness, images.labels[outside].numpy(), chosen)
    margins = scores - np.where(doubts, group.doubted_limit, group.limit)
    return np.nan_to_num(margins, neginf=-1e3)


def _classes(search: _Search, images: Samples, suspects: NDArray[np.bool_]) -> list[JudgedClass]:
    labels = images.labels.numpy()
    seen = np.bincount(search.labels.numpy(), minlength=search.classes)
    judged = []
    for name, number in images.class_to_idx.items():
        own = labels == number
        verdict = search.verdicts.get(number)
        count = int(own.sum())
        separation, why = (verdict.separation, verdict.why(name)) if verdict is not None else (0.0, "")
        listed = int(suspects[own].sum())
        picture = verdict.picture() if verdict is not None and listed else ""
        too_few = min(seen[number], seen.sum() - seen[number]) < FEWEST
        judged.append(JudgedClass(name, count, listed, round(separation, 4), LIMIT, why, bool(too_few), picture))
    return judged
