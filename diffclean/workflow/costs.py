"""Measures in some seconds, before any work, what the parts of the job cost on this machine."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from diffclean.data.registry import FOLDER

if TYPE_CHECKING:
    from diffclean.variation.settings import Settings

SEARCHER = "resnet8-cifar"
"""What the networks of the default detector cost about as much as."""
SEARCH_SIDE = 96
"""The largest side in px at which that network is timed. The detector's own networks halve large images at once: with
images of 128 px they take about twice as long as with 64 px, as this network does with images of this side."""
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
        mirrored_s: seconds to train the network that looks at mirrored images on an image once.
        busy: how many times as long everything takes now, while other processes use the cores. The seconds above are
            those of a machine that does nothing else.
    """

    training_s: float
    searching_s: float
    variation_s: float
    variation_bytes: float
    engine: str
    mirrored_s: float
    busy: float = 1.0


@dataclass(frozen=True)
class Pace:
    """The measured speed of a training.

    Attributes:
        seconds: seconds to train on one image if the machine does nothing else.
        busy: how many times as long it took, because other processes used the cores.
    """

    seconds: float
    busy: float


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
    from diffclean.training.mirrored import SIDE
    from diffclean.variation.estimate import estimate

    found = estimate(data, out, settings, to=FOLDER)
    training = training_pace(arch, side, classes, batch, device)
    searched_side = min(side, SEARCH_SIDE)
    searching = training_pace(SEARCHER, searched_side, classes, 128, device)
    mirrored_s = searching.seconds * (SIDE / searched_side) ** 2  # It is the same network.
    busy = max(training.busy, searching.busy)
    each = (
        found.seconds / max(1, found.variations - found.already_made)
        or found.windows_per_image / found.windows_per_second
    )
    bytes_each = found.bytes / max(1, found.variations - found.already_made)
    return Costs(training.seconds, searching.seconds, each / busy, bytes_each, found.engine, mirrored_s, busy)


def training_pace(arch: str, side: int, classes: int, batch: int, device: str | None = None) -> Pace:
    """Return how fast a network trains in steps of `batch`, by the fastest of a few steps."""
    import torch
    from torch.nn import functional as F

    from diffclean.classifiers.networks import build, check_takes, pick_device
    from diffclean.training.precision import autocast, resolved_precision

    where = pick_device(device)
    precision = resolved_precision(None, where)
    with torch.random.fork_rng(devices=[where] if where.type == "cuda" else []):
        model = build(arch, classes).to(where).to(memory_format=torch.channels_last)
        check_takes(model, arch, (side, side), where)
        model.train()
        images = torch.rand(batch, 3, side, side, device=where).to(memory_format=torch.channels_last)
    labels = torch.arange(batch, device=where) % classes
    quickest, taken, lost = float("inf"), 0.0, 0.0
    for _ in range(_STEPS):
        started, before = time.monotonic(), _waits()
        with autocast(where, precision):
            loss = F.cross_entropy(model(images), labels)
        loss.backward()
        loss.item()  # This waits until the GPU is done.
        step_s = time.monotonic() - started
        # A wait counts when it ends, so it may be longer than the step.
        lost_s = min(_longest_wait_s(before, _waits()), 0.9 * step_s)
        quickest = min(quickest, step_s - lost_s)
        taken, lost = taken + step_s, lost + lost_s
    return Pace(quickest / batch, taken / (taken - lost))


def _waits() -> dict[str, int]:
    """Return thread -> nanoseconds that it has waited for a core so far. Empty where the system does not count them.

    The second number of Linux's /proc/PID/task/TID/schedstat (Documentation/scheduler/sched-stats.rst).
    """
    waits = {}
    for path in Path("/proc/self/task").glob("*/schedstat"):
        with suppress(OSError, ValueError, IndexError):  # The thread may have ended.
            waits[path.parent.name] = int(path.read_text().split()[1])
    return waits


def _longest_wait_s(before: dict[str, int], after: dict[str, int]) -> float:
    """Return the seconds that the thread that waited longest has lost: the others of a step wait for it."""
    return max((waited - before.get(thread, 0) for thread, waited in after.items()), default=0) / 1e9
