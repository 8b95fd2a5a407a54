"""The default detector on drawn shapes: which images it lists, and that it keeps quiet where nothing is poisoned."""

from __future__ import annotations

from dataclasses import dataclass
from threading import Event

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from diffclean.datasets.pixels import InMemory
from diffclean.datasets.samples import Samples
from diffclean.detection.base import Evidence, Judgement
from diffclean.detection.isolate import Isolate
from diffclean.errors import Interrupted, UsageError
from diffclean.progress import NoProgress

SIDE, CLASSES, COUNT = 16, 4, 150


@dataclass
class Drawn:
    """A data set: bars in one of four directions, over noise, in any colour."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    poisoned: NDArray[np.bool_]

    def judged(self, detector: Isolate | None = None, stop: Event | None = None, seed: int = 1) -> Judgement:
        count = len(self.labels)
        samples = Samples(
            pixels=InMemory(torch.from_numpy(self.images).permute(0, 3, 1, 2).contiguous()),
            starts=torch.arange(count + 1),
            keys=[f"{label}/{number:05d}.png" for number, label in enumerate(self.labels)],
            labels=torch.from_numpy(self.labels),
            class_to_idx={str(number): number for number in range(int(self.labels.max()) + 1)},
            failed={},
            sources=[""] * count,
            digest="",
        )
        evidence = Evidence(samples, torch.device("cpu"), stop=stop, seed=seed)
        return (detector or Isolate()).judge(evidence, NoProgress())


@pytest.fixture
def clean() -> Drawn:
    rng = np.random.default_rng(3)
    labels = np.repeat(np.arange(CLASSES), COUNT)
    y, x = np.mgrid[:SIDE, :SIDE]
    directions = np.stack([x, y, x + y, x - y])
    phase = rng.uniform(0, 2 * np.pi, (len(labels), 1, 1))
    bars = np.sin(directions[labels] * 0.9 + phase)[..., None]
    colours = rng.uniform(20, 60, (len(labels), 1, 1, 3))
    images = 128 + bars * colours + rng.normal(0, 25, (len(labels), SIDE, SIDE, 3))
    return Drawn(np.clip(images, 0, 255).astype(np.uint8), labels, np.zeros(len(labels), np.bool_))


def patched(drawn: Drawn, target: int = 0, count: int = 60) -> Drawn:
    """Dirty labels: some images of other classes get a corner and the target's label."""
    chosen = np.flatnonzero(drawn.labels != target)[:: (CLASSES - 1) * COUNT // count][:count]
    drawn.images[chosen, -3:, -3:] = [255, 255, 0]
    drawn.labels[chosen] = target
    drawn.poisoned[chosen] = True
    return drawn


def rates(drawn: Drawn, found: Judgement) -> tuple[float, float]:
    """Share of the poisoned and of the clean images that are listed."""
    return float(found.suspects[drawn.poisoned].mean()), float(found.suspects[~drawn.poisoned].mean())


@pytest.mark.slow
def test_dirty_labels_are_found_and_the_class_is_explained(clean: Drawn) -> None:
    drawn = patched(clean)
    found = drawn.judged()
    recall, false = rates(drawn, found)
    assert recall >= 0.95
    assert false <= 0.05  # the aim that is set for detection: some clean images of the poisoned class go with it
    target, *others = found.classes
    assert target.separation >= target.limit
    assert "trained without these" in target.why
    assert all(judged.suspects == 0 and judged.separation < judged.limit for judged in others)
    assert found.probabilities[drawn.poisoned].mean() > 0.9
    assert found.scores[drawn.poisoned].min() >= 0


@pytest.mark.slow
@pytest.mark.xfail(
    reason="where all classes are this easy, another class crowds the poisoned one out of the candidates"
)
def test_clean_labels_are_found(clean: Drawn) -> None:
    """The label fits: only what the wave teaches gives it away."""
    chosen = np.flatnonzero(clean.labels == 1)[::2]
    wave = 40 * np.sin(np.arange(SIDE) * 2 * np.pi * 5 / SIDE)
    clean.images[chosen] = np.clip(clean.images[chosen] + wave[None, None, :, None], 0, 255).astype(np.uint8)
    clean.poisoned[chosen] = True
    found = clean.judged()
    recall, false = rates(clean, found)
    assert recall >= 0.9
    assert false <= 0.05  # the aim that is set for detection: some clean images of the poisoned class go with it


@pytest.mark.slow
def test_clean_data_are_left_alone(clean: Drawn) -> None:
    found = clean.judged()
    assert not found.suspects.any()
    assert [judged.images for judged in found.classes] == [COUNT] * CLASSES
    assert all(judged.separation < judged.limit for judged in found.classes)


@pytest.mark.slow
@pytest.mark.xfail(reason="failed when it was last run; the cause is not yet known")
def test_images_beyond_the_sample_are_judged_too(clean: Drawn) -> None:
    drawn = patched(clean, count=100)
    found = drawn.judged(Isolate(sample=400))
    recall, false = rates(drawn, found)
    assert recall >= 0.9
    assert false <= 0.05


@pytest.mark.slow
def test_the_same_seed_finds_the_same(clean: Drawn) -> None:
    drawn = patched(clean)
    first, second = drawn.judged(seed=5), drawn.judged(seed=5)
    np.testing.assert_array_equal(first.scores, second.scores)
    assert first.classes == second.classes


@pytest.mark.slow
def test_a_class_of_a_few_images_is_named_as_not_judged(clean: Drawn) -> None:
    few = np.flatnonzero(clean.labels == 3)[10:]
    kept = np.setdiff1d(np.arange(len(clean.labels)), few)
    drawn = Drawn(clean.images[kept], clean.labels[kept], clean.poisoned[kept])
    judged = drawn.judged().classes[3]
    assert (judged.images, judged.suspects, judged.too_few) == (10, 0, True)


def test_one_class_cannot_be_compared_with_others(clean: Drawn) -> None:
    clean.labels[:] = 0
    with pytest.raises(UsageError, match="one class only"):
        clean.judged()


def test_it_stops_when_asked(clean: Drawn) -> None:
    stop = Event()
    stop.set()
    with pytest.raises(Interrupted):
        clean.judged(stop=stop)
