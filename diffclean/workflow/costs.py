"""Measures in some seconds, before any work, what the parts of the job cost on this machine."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from diffclean.data.registry import FOLDER

if TYPE_CHECKING:
    from diffclean.variation.settings import Settings

SEARCHER = "resnet8-cifar"
"""What the networks of the default detector cost about as much as."""
SEARCH_SIDE = 64
"""The largest side in px at which the default detector looks at images."""
_STEPS = 3


@dataclass(frozen=True)
class Costs:
    """The cost of one image in seconds and bytes.

    Attributes:
        training_s: seconds to train on an image once.
        searching_s: the same for a network of the default detector.
        variation_s: seconds to make one variation.
        variation_bytes: bytes that a variation takes on disk.
        engine: the engine that makes variations: fingerprint, runtime and precision.
    """

    training_s: float
    searching_s: float
    variation_s: float
    variation_bytes: float
    engine: str


def measured_costs(
    data: Path, out: Path, settings: Settings, arch: str, side: int, classes: int, batch: int, device: str | None
) -> Costs:
    """Measure a batch of variations and some steps of training.

    Args:
        data: the suspect data set.
        out: the folder in which the variations will be written.
        settings: the settings of the variations.
        arch: the architecture of the classifiers.
        side: the side in px of the images that the classifiers see.
        classes: the number of classes.
        batch: the number of images per training step.
        device: as in `train`.

    Raises:
        DiffcleanError: as in `variate`: there is no such engine, no runtime for it, or no image that can be read.
    """
    from diffclean.variation.estimate import estimate

    found = estimate(data, out, settings, to=FOLDER)
    training_s = training_pace(arch, side, classes, batch, device)
    searching_s = training_pace(SEARCHER, min(side, SEARCH_SIDE), classes, 128, device)
    each = (
        found.seconds / max(1, found.variations - found.already_made)
        or found.windows_per_image / found.windows_per_second
    )
    bytes_each = found.bytes / max(1, found.variations - found.already_made)
    return Costs(training_s, searching_s, each, bytes_each, found.engine)


def training_pace(arch: str, side: int, classes: int, batch: int, device: str | None = None) -> float:
    """Return the seconds that a network takes to train on one image in steps of `batch`: the fastest of a few steps."""
    import torch
    from torch.nn import functional as F

    from diffclean.classifiers.networks import build, pick_device
    from diffclean.training.precision import autocast, resolved_precision

    where = pick_device(device)
    precision = resolved_precision(None, where)
    with torch.random.fork_rng(devices=[where] if where.type == "cuda" else []):
        model = build(arch, classes).to(where).to(memory_format=torch.channels_last).train()
        images = torch.rand(batch, 3, side, side, device=where).to(memory_format=torch.channels_last)
    labels = torch.arange(batch, device=where) % classes
    quickest = float("inf")
    for _ in range(_STEPS):
        started = time.monotonic()
        with autocast(where, precision):
            loss = F.cross_entropy(model(images), labels)
        loss.backward()
        loss.item()  # This waits until the GPU is done.
        quickest = min(quickest, time.monotonic() - started)
    return quickest / batch
