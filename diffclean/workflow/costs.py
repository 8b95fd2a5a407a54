"""What the parts of the job cost on this machine, measured in some seconds before any work."""

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
    """Seconds and bytes for one image.

    Attributes:
        training_s: to learn from an image once.
        searching_s: the same for a network of the default detector.
        variation_s: to make one variation.
        variation_bytes: that it takes on disk.
        engine: what makes variations: fingerprint, runtime and precision.
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
        out: where the variations will lie.
        settings: of the variations.
        arch: of the classifiers.
        side: of the images that they see, in px.
        classes: how many there are.
        batch: images a training step.
        device: as in `train`.

    Raises:
        DiffcleanError: as `variate`: no such engine, nothing that runs it, no image that can be read.
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
    """Seconds that a network takes to learn from one image, in steps of `batch`; the quickest of a few."""
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
        loss.item()  # waits for a GPU
        quickest = min(quickest, time.monotonic() - started)
    return quickest / batch
