"""What two teachers know of an image: worked by hand, on numbers, and where one has a backdoor and one has none."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from diffclean.classifiers.loading import LoadedClassifier
from diffclean.datasets.pixels import InMemory
from diffclean.datasets.samples import Samples
from diffclean.detection.base import Evidence, Judgement
from diffclean.detection.logit_difference import LogitDifference
from diffclean.errors import UsageError
from diffclean.progress import NoProgress

CLASSES = {"red": 0, "green": 1, "blue": 2}
OTHER_ORDER = {"blue": 0, "green": 1, "red": 2}


def levels(images: Tensor) -> Tensor:
    """(B, 3, 1, 1) in [0, 1] -> (B, 3): the levels of red, green and blue are the logits."""
    return images[:, :, 0, 0] * 255


def turned(images: Tensor) -> Tensor:
    """Logits in `OTHER_ORDER`; a green of 200 or more, the trigger, adds nothing to them."""
    seen = levels(images)
    return torch.where(seen[:, 1:2] >= 200, seen * torch.tensor([1.0, 0, 1]), seen).flip(1)


def pictures(colours: list[tuple[int, int, int]], labels: list[int]) -> Samples:
    pixels = InMemory(torch.tensor(colours, dtype=torch.uint8)[:, :, None, None])
    keys = [str(number) for number in range(len(labels))]
    starts = torch.arange(len(labels) + 1)
    return Samples(pixels, starts, keys, torch.tensor(labels), CLASSES, {}, [""] * len(keys), "")


def judged(images: Samples, listed: frozenset[str] = frozenset()) -> Judgement:
    old = LoadedClassifier(levels, CLASSES, None, None, "")
    new = LoadedClassifier(turned, OTHER_ORDER, None, None, "")
    evidence = Evidence(images, torch.device("cpu"), old, retrained=new, listed=listed)
    return LogitDifference().judge(evidence, NoProgress())


def test_the_score_is_the_difference_of_the_centred_logits_of_the_label() -> None:
    """First image, green: 240 - 90 = 150 in the old teacher, 0 - 10 = -10 in the new one, whose logits are 30, 0, 0.

    Second image, red: both teachers answer 60 - 30 = 30. The third one has no label, and the old teacher says green.
    """
    found = judged(pictures([(30, 240, 0), (60, 30, 0), (0, 210, 0)], [1, 0, -1]))
    assert found.scores == pytest.approx([150 + 10, 0, 140], abs=1e-3)
    assert [(each.name, each.images) for each in found.classes] == [("red", 1), ("green", 2), ("blue", 0)]


def drawn(triggered: int) -> Samples:
    """400 pictures with the label green, of which the last few have the trigger; and 400 red ones."""
    rng = np.random.default_rng(0)
    green = [(int(rng.integers(0, 40)), int(rng.integers(60, 120)), int(rng.integers(0, 40))) for _ in range(400)]
    for number in range(400 - triggered, 400):
        green[number] = (green[number][0], int(rng.integers(200, 220)), green[number][2])
    red = [(int(rng.integers(60, 120)), int(rng.integers(0, 40)), 0) for _ in range(400)]
    return pictures(green + red, [1] * 400 + [0] * 400)


def test_what_the_list_missed_is_found() -> None:
    found = judged(drawn(40), frozenset(str(number) for number in range(360, 380)))
    assert np.flatnonzero(found.suspects).tolist() == list(range(380, 400)), "images on the list are not judged again"
    green = found.classes[1]
    assert (green.name, green.images, green.suspects) == ("green", 400, 20)
    assert green.separation > green.limit == pytest.approx(0.1 + 30 / 380)
    assert found.classes[0].suspects == 0


def test_a_complete_list_leaves_nothing_to_find() -> None:
    found = judged(drawn(40), frozenset(str(number) for number in range(360, 400)))
    assert not found.suspects.any()
    assert not found.probabilities.any()


def test_two_teachers_that_differ_by_chance_are_no_reason_to_list_anything() -> None:
    """Their logits differ a little on every image, as those of two trainings do."""
    noise = torch.Generator().manual_seed(0)

    def noisy(images: Tensor) -> Tensor:
        return levels(images) + 10 * torch.randn(len(images), 3, generator=noise)

    one, other = (LoadedClassifier(noisy, CLASSES, None, None, "") for _ in range(2))
    found = LogitDifference().judge(Evidence(drawn(40), torch.device("cpu"), one, retrained=other), NoProgress())
    assert not found.suspects.any()


def test_one_teacher_is_not_enough() -> None:
    evidence = Evidence(drawn(0), torch.device("cpu"), LoadedClassifier(levels, CLASSES, None, None, ""))
    with pytest.raises(UsageError, match=r"`retrained` MODEL"):
        LogitDifference().judge(evidence, NoProgress())
