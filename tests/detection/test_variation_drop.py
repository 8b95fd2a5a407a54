"""What variation takes from the teacher's answer: worked by hand, on numbers, and on a classifier with a backdoor."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from suspect_set import COUNT, TRIGGERED
from torch import Tensor

from diffclean.classifiers.loading import LoadedClassifier
from diffclean.datasets.pixels import InMemory
from diffclean.datasets.samples import Samples
from diffclean.detection.base import Evidence
from diffclean.detection.find import find_suspects
from diffclean.detection.variation_drop import VariationDrop, judged_drops
from diffclean.progress import NoProgress

CLASSES = {"red": 0, "green": 1, "blue": 2}


def flat(colours: list[tuple[int, int, int]], variations: int = 1) -> Samples:
    """Pictures of one pixel; `variations` of each image side by side."""
    keys = [f"x/{index}" for index in range(len(colours) // variations)]
    pixels = InMemory(torch.tensor(colours, dtype=torch.uint8)[:, :, None, None])
    starts = torch.arange(0, len(colours) + 1, variations)
    return Samples(pixels, starts, keys, torch.zeros(len(keys), dtype=torch.int64), CLASSES, {}, [""] * len(keys), "")


def colours_of(images: Tensor) -> Tensor:
    """(B, 3, 1, 1) in [0, 1] -> (B, 3): the levels of red, green and blue are the logits."""
    return images[:, :, 0, 0] * 255


def test_the_score_is_the_centred_logit_less_its_mean_over_the_variations() -> None:
    """A constant that is added to all logits of a picture says nothing, so it must not change the score.

    First image: its centred logit of red is 30 - 10 = 20. Its variations have 60 - 40 = 20 and 39 - 33 = 6, and the
    mean of these is 13. Second image: green, 50 - 20 = 30; 100 - 90 = 10 and 60 - 40 = 20, with the mean 15.
    """
    teacher = LoadedClassifier(colours_of, CLASSES, None, None, "")
    images = flat([(30, 0, 0), (0, 50, 10)])
    varied = flat([(60, 30, 30), (39, 30, 30), (80, 100, 90), (20, 60, 40)], variations=2)
    found = VariationDrop().judge(Evidence(images, torch.device("cpu"), teacher, varied), NoProgress())
    assert found.scores == pytest.approx([20 - 13, 30 - 15], abs=1e-4)
    assert [(judged.name, judged.images) for judged in found.classes] == [("red", 1), ("green", 1), ("blue", 0)]


def two_groups(clean: int, poisoned: int, apart: float) -> NDArray[np.float64]:
    """Normal drops of deviation 1; those of the poisoned images, which come last, are larger by `apart`."""
    rng = np.random.default_rng(0)
    return np.concatenate([rng.normal(0, 1, clean), rng.normal(apart, 1, poisoned)])


def test_a_separation_above_the_limit_lists_the_upper_group() -> None:
    """As for SIG in docs/evidence.md: a separation of little more than 0.2 in a class of about a thousand images."""
    drops = two_groups(900, 100, 4.5)
    found = judged_drops(drops, np.zeros(1000, np.int64), ["airplane"])
    (judged,) = found.classes
    assert judged.limit == pytest.approx(0.1 + 30 / 1000)
    assert 0.13 < judged.separation < 0.4
    assert judged.suspects == found.suspects.sum()
    assert found.suspects[900:].mean() > 0.95
    assert found.suspects[:900].mean() < 0.05


def test_a_separation_below_the_limit_lists_nothing() -> None:
    found = judged_drops(two_groups(900, 100, 2.5), np.zeros(1000, np.int64), ["airplane"])
    assert 0.02 < found.classes[0].separation < 0.13
    assert not found.suspects.any()
    assert not found.probabilities.any()


def test_an_image_is_listed_from_a_probability_of_a_tenth_on() -> None:
    found = judged_drops(two_groups(900, 100, 4.5), np.zeros(1000, np.int64), ["airplane"])
    between = (found.probabilities > 0.1) & (found.probabilities < 0.5)
    assert between.any(), "the example has no image in doubt"
    assert found.suspects[between].all()
    assert not found.suspects[found.probabilities < 0.1].any()


def test_classes_are_judged_apart() -> None:
    """What is usual in one class is no evidence against it because another class is lower."""
    drops = np.concatenate([two_groups(500, 0, 0), two_groups(500, 0, 0) + 20])
    found = judged_drops(drops, np.repeat([0, 1], 500), ["a", "b"])
    assert not found.suspects.any()


@pytest.mark.parametrize(("images", "too_few"), [(29, True), (30, False)])
def test_a_class_of_a_few_images_is_never_parted_and_says_so(images: int, too_few: bool) -> None:
    drops = two_groups(images - 10, 10, 100)
    found = judged_drops(drops, np.zeros(images, np.int64), ["a", "b"])
    assert [judged.too_few for judged in found.classes] == [too_few, True]
    assert found.suspects.sum() == (0 if too_few else 10)


def test_images_whose_answer_hangs_on_the_trigger_are_listed(
    fooled: Path, suspect_run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = find_suspects(None, "variation-drop", fooled, suspect_run, device="cpu")
    assert found.keys == TRIGGERED
    assert {judged.name: (judged.images, judged.suspects) for judged in found.classes} == {
        "blue": (COUNT, len(TRIGGERED)),
        "green": (COUNT, 0),
        "red": (COUNT, 0),
    }
    assert "2 variations of an image" in caplog.text
    scores = {image.key: image.score for image in found.images}
    assert min(scores[key] for key in TRIGGERED) > max(score for key, score in scores.items() if key not in TRIGGERED)


def test_without_a_trigger_nothing_is_listed(fooled: Path, suspect_set: Path, tmp_path: Path) -> None:
    from suspect_set import vary_suspects

    for key in TRIGGERED:
        (suspect_set / key).unlink()
    run = vary_suspects(suspect_set, tmp_path / "run", 4)
    found = find_suspects(None, "variation-drop", fooled, run, device="cpu")
    assert (found.keys, len(found.images)) == (frozenset(), 3 * COUNT - len(TRIGGERED))
