"""The verdict on a group that is given: both questions, each with an answer for and against."""

from __future__ import annotations

import io
from base64 import b64decode

import numpy as np
import pytest
import torch
from bars import CLASSES, COUNT, Bars, draw_bars, patched, waved
from numpy.typing import NDArray
from PIL import Image

from diffclean.detection.looks import Kind, Proposal
from diffclean.detection.network import learn_labels
from diffclean.detection.spread import Group
from diffclean.detection.verdict import Verdict, judge_group, witness

EPOCHS = 12


def verdict_on(drawn: Bars, label: int, members: NDArray[np.int64]) -> Verdict:
    """The verdict on these images of a label, as if they had been found."""
    bench, labels, chosen = drawn.bench(), torch.from_numpy(drawn.labels), torch.arange(len(drawn.labels))
    rest = np.setdiff1d(np.flatnonzero(drawn.labels == label), members)
    proposal = Proposal(label, Kind.LOW, 1.0, members[:8], rest, float(COUNT), oversized=False)
    seen = learn_labels(bench, labels, chosen, CLASSES, EPOCHS, seed=1)
    net = bench.network(1, 1)
    group = Group(proposal, np.zeros(len(labels)), 0.0, members, rest, (net, net))
    return judge_group(bench, labels, chosen, group, seen, witness(bench, labels, chosen, [group], CLASSES, seed=2))


@pytest.mark.slow
def test_dirty_labels_are_not_kept_and_go_to_many_classes() -> None:
    drawn = patched(draw_bars())
    found = verdict_on(drawn, 0, np.flatnonzero(drawn.poisoned))
    assert found.is_poisoned
    assert found.has_dirty_labels
    assert found.kept < 0.2 < 0.8 < found.others_kept
    assert found.scatter > 0.8


@pytest.mark.slow
def test_what_a_group_with_fitting_labels_teaches_convicts_it() -> None:
    drawn = waved(draw_bars())
    found = verdict_on(drawn, 1, np.flatnonzero(drawn.poisoned))
    assert found.is_poisoned
    assert found.taught > 0.5
    assert found.untaught < 0.1
    middle = found.difference.mean((0, 1))  # the wave runs along the rows
    assert np.abs(middle).max() > 20
    shown = np.asarray(Image.open(io.BytesIO(b64decode(found.picture()))), np.float64)
    assert shown.shape == (*found.difference.shape[1:], 3)
    assert np.corrcoef(shown.mean((0, 2)), middle)[0, 1] > 0.99


@pytest.mark.slow
def test_clean_images_keep_their_label_and_teach_nothing() -> None:
    drawn = draw_bars()
    found = verdict_on(drawn, 2, np.flatnonzero(drawn.labels == 2)[::3])
    assert not found.is_poisoned
    assert not found.has_dirty_labels
