"""Drawn bars in one of four directions, in memory: what the default detector and its parts are tried on."""

from __future__ import annotations

from dataclasses import dataclass
from threading import Event

import numpy as np
import torch
from numpy.typing import NDArray

from diffclean.datasets.pixels import InMemory
from diffclean.datasets.samples import Samples
from diffclean.detection.base import Evidence, Judgement
from diffclean.detection.isolate import Isolate
from diffclean.detection.network import Workbench
from diffclean.progress import NoProgress

SIDE, CLASSES, COUNT = 16, 4, 150


@dataclass
class Bars:
    """A data set: bars in one of four directions, over noise, in any colour.

    Attributes:
        images: (N, 16, 16, 3) uint8.
        labels: (N,) int64.
        poisoned: (N,) bool.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    poisoned: NDArray[np.bool_]

    @property
    def pixels(self) -> torch.Tensor:
        """(N, 3, 16, 16) uint8."""
        return torch.from_numpy(self.images).permute(0, 3, 1, 2).contiguous()

    def judged(self, detector: Isolate | None = None, stop: Event | None = None, seed: int = 1) -> Judgement:
        """What the detector says."""
        count = len(self.labels)
        samples = Samples(
            pixels=InMemory(self.pixels),
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

    def bench(self) -> Workbench:
        """What the parts of the detector work with."""
        pixels = self.pixels
        return Workbench(pixels, InMemory(pixels).statistics(), torch.device("cpu"), 1, NoProgress())


def draw_bars(count: int = COUNT) -> Bars:
    """Images of four classes, `count` of each, always the same."""
    rng = np.random.default_rng(3)
    labels = np.repeat(np.arange(CLASSES), count)
    y, x = np.mgrid[:SIDE, :SIDE]
    directions = np.stack([x, y, x + y, x - y])
    phase = rng.uniform(0, 2 * np.pi, (len(labels), 1, 1))
    bars = np.sin(directions[labels] * 0.9 + phase)[..., None]
    colours = rng.uniform(20, 60, (len(labels), 1, 1, 3))
    images = 128 + bars * colours + rng.normal(0, 25, (len(labels), SIDE, SIDE, 3))
    return Bars(np.clip(images, 0, 255).astype(np.uint8), labels, np.zeros(len(labels), np.bool_))


def patched(drawn: Bars, target: int = 0, count: int = 60) -> Bars:
    """Dirty labels: some images of other classes get a corner and the target's label."""
    others = np.flatnonzero(drawn.labels != target)
    chosen = others[:: len(others) // count][:count]
    drawn.images[chosen, -3:, -3:] = [255, 255, 0]
    drawn.labels[chosen] = target
    drawn.poisoned[chosen] = True
    return drawn


def exchanged(drawn: Bars, count: int = 90) -> Bars:
    """All-to-all: some images of every class get a corner and the label of the next class."""
    chosen = np.arange(len(drawn.labels))[:: len(drawn.labels) // count][:count]
    drawn.images[chosen, -3:, -3:] = [255, 255, 0]
    drawn.labels[chosen] = (drawn.labels[chosen] + 1) % CLASSES
    drawn.poisoned[chosen] = True
    return drawn


def waved(drawn: Bars, target: int = 1) -> Bars:
    """Half of the target's images get a wave, and so little is left of their bars that only the wave tells."""
    chosen = np.flatnonzero(drawn.labels == target)[::2]
    rng = np.random.default_rng(4)
    wave = 40 * np.sin(np.arange(SIDE) * 2 * np.pi * 5 / SIDE)
    faint = 128 + 0.05 * (drawn.images[chosen].astype(float) - 128) + rng.normal(0, 35, drawn.images[chosen].shape)
    drawn.images[chosen] = np.clip(faint + wave[None, None, :, None], 0, 255).astype(np.uint8)
    drawn.poisoned[chosen] = True
    return drawn
