"""Measures whether a mirrored image still shows its class.

A photograph of a dog shows a dog in the mirror too, and a training that mirrors images learns more from them. A traffic
sign that points left points right in the mirror, and digits and letters become something else: there, the same training
unlearns what it should learn. A classifier that has never seen a mirrored image can say which of the two it is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event

import numpy as np
import torch

from diffclean.classifiers.networks import Classifier, build, predict
from diffclean.data.item import Item
from diffclean.data.registry import open_source
from diffclean.datasets.bits import ids_of
from diffclean.datasets.labelled import named
from diffclean.datasets.samples import Samples, folder_samples, memory_limit
from diffclean.errors import Interrupted
from diffclean.progress import NoProgress, Progress
from diffclean.training.distributed import World, joined
from diffclean.training.loop_config import LoopConfig
from diffclean.training.objective import Supervised
from diffclean.training.precision import resolved_precision
from diffclean.training.recipes import FAST, RECIPES
from diffclean.training.trainer import Trainer

ARCH, SIDE = "resnet8-cifar", 32
"""The network and the side in px at which images are looked at: enough to see where a sign points, and quick."""
_IMAGES = 4_000
_FEWEST_A_CLASS = 60
_FEWEST = 60
"""Images below which no class can have turned beyond chance, so that nothing is trained."""
_SHOWN = 12_000
"""Images that the classifier is shown in all, about; this takes about a quarter of a minute on two CPU cores."""
_EPOCHS = (4, 12)
_BATCHES = (10, 100)
_STEPS = 10
"""Steps of an epoch, where the batch may be chosen for it."""
_HELD_OUT = 0.3
_KNOWN = 0.5
"""The share of its held-out images that the classifier has to recognise before a class can count."""
_LEFT = 0.5
"""A class has turned into something else if it recognises less than this share of those in the mirror."""
_CHANCE = 1e-3
_CLASSES = 2
"""So many classes must have turned. One alone may be the target of an attack, whose trigger lies elsewhere in a
mirrored image, so that the classifier no longer takes the image for the target."""


@dataclass(frozen=True)
class ClassSeen:
    """The answers to the held-out images of one class.

    Attributes:
        images: how many images were held out.
        right: how many of them were recognised.
        right_mirrored: how many of them were recognised in the mirror.
        lost: how many were recognised as they are, and not in the mirror.
        gained: how many were recognised in the mirror only.
    """

    images: int
    right: int
    right_mirrored: int
    lost: int
    gained: int

    @property
    def turned(self) -> bool:
        """Whether the class is recognised as it is and, beyond chance (a sign test), is not in the mirror."""
        known = self.right >= _KNOWN * self.images and self.right_mirrored < _LEFT * self.right
        return known and _as_uneven(self.lost, self.gained) <= _CHANCE


@dataclass(frozen=True)
class Mirrored:
    """The result for a data set.

    Attributes:
        classes: the answers by class, for the classes that have held-out images.
    """

    classes: Mapping[str, ClassSeen]

    @property
    def turned(self) -> list[str]:
        """The classes that become something else in the mirror."""
        return [name for name, seen in self.classes.items() if seen.turned]

    @property
    def harmless(self) -> bool:
        """Whether a training may mirror the images."""
        return len(self.turned) < _CLASSES

    @property
    def told(self) -> str:
        """What was found, in a sentence; empty if images may be mirrored."""
        if self.harmless:
            return ""
        return f"No image is mirrored in training: in the mirror, {named(self.turned)} are taken for something else."


def look_in_mirror(
    data: Path,
    classes: Mapping[str, int],
    seed: int = 1,
    device: str | None = None,
    progress: Progress | None = None,
    stop: Event | None = None,
) -> Mirrored:
    """Train a small classifier without mirrored images, and show it held-out images as they are and in the mirror.

    At most some thousand images are used, evenly from all classes. Labels that an attacker has changed do not matter as
    long as they are a minority in all classes but one.

    Args:
        data: a labelled data set in any format.
        classes: its classes with their numbers.
        seed: the seed of the training.
        device: a torch device. None: CUDA if it works, otherwise the CPU.
        progress: is advanced for each image that was read or trained on.
        stop: an event that ends the work when it is set.

    Raises:
        DiffcleanError: the data cannot be used.
        Interrupted: `stop` was set.
    """
    progress = progress or NoProgress()
    with joined(device) as world:
        samples = _some(data, classes, progress)
        if len(samples.keys) < _FEWEST:
            return Mirrored({})
        model, held_out = _trained(samples, seed, world, progress, stop)
        views = samples.starts[held_out]
        pixels = torch.cat(list(samples.pixels.batches(list(views.split(512)))))
        labels = samples.labels[held_out]
        straight, mirrored = (predict(model, shown).argmax(1) == labels for shown in (pixels, pixels.flip(3)))
    counts = {}
    for name, number in samples.class_to_idx.items():
        own = labels == number
        if own.any():
            a, b = straight[own], mirrored[own]
            figures = (own.sum(), a.sum(), b.sum(), (a & ~b).sum(), (b & ~a).sum())
            counts[name] = ClassSeen(*(int(figure) for figure in figures))
    return Mirrored(counts)


def _some(data: Path, classes: Mapping[str, int], progress: Progress) -> Samples:
    """Some of the images, as many of each class."""
    items = open_source(data).items()
    by_class: dict[str, list[Item]] = {}
    for item in items:
        by_class.setdefault(item.label, []).append(item)
    most = max(_FEWEST_A_CLASS, _IMAGES // len(by_class))
    chosen = {item.key for own in by_class.values() for item in _first(own, most)}
    left_out = [item.key for item in items if item.key not in chosen]
    memory = memory_limit(None, 1)
    return folder_samples(data, (SIDE, SIDE), classes, without=frozenset(left_out), memory=memory, progress=progress)


def _first(items: Sequence[Item], most: int) -> list[Item]:
    """`most` of the items, chosen by their keys."""
    return [items[number] for number in np.argsort(ids_of([item.key for item in items]))[:most]]


def _trained(
    samples: Samples, seed: int, world: World, progress: Progress, stop: Event | None
) -> tuple[Classifier, torch.Tensor]:
    """A classifier that never saw a mirrored image, and the images that were held out."""
    recipe = RECIPES[FAST]
    images = len(samples.split(_HELD_OUT)[0])
    config = LoopConfig(
        epochs=_within(_EPOCHS, _SHOWN // images),
        batch_size=_within(_BATCHES, images // _STEPS),
        optimizer=recipe["optimizer"],  # AdamW learned far less in as many steps.
        schedule=recipe["schedule"],
        flip="none",
        shift=recipe["shift"],
        seed=seed,
        validation_share=_HELD_OUT,
    )
    with torch.random.fork_rng(devices=[world.device] if world.device.type == "cuda" else []):
        torch.manual_seed(seed)
        model = build(ARCH, len(samples.class_to_idx), *samples.pixels.statistics())
        model.to(world.device).to(memory_format=torch.channels_last)
        objective = Supervised(recipe["label_smoothing"])
        trainer = Trainer(model, samples, objective, config, resolved_precision(None, world.device), world)
        progress.begin("Looking at mirrored images", trainer.all_steps * trainer.batch)
        model.train()
        for epoch in range(config.epochs):
            batches = trainer.batches(epoch, 0)
            shown = samples.pixels.batches([views for _, views in batches])
            for step, ((batch, views), pixels) in enumerate(zip(batches, shown, strict=True)):
                if stop is not None and stop.is_set():
                    raise Interrupted("Interrupted.", "The same command goes on from here.")
                trainer.train_step(epoch, step, batch, views, pixels)
                progress.advance(len(batch))
        progress.end()
    return model, trainer.held_out


def _within(limits: tuple[int, int], value: int) -> int:
    """The value, or the limit that is nearest to it."""
    return min(limits[1], max(limits[0], value))


def _as_uneven(lost: int, gained: int) -> float:
    """The probability that, of `lost` + `gained` fair coins, at least `lost` show heads."""
    count = lost + gained
    return sum(math.comb(count, heads) for heads in range(lost, count + 1)) / 2**count
