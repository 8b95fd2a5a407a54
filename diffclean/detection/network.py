"""The small networks that detectors use, and how they are trained in minutes on a CPU.

They need not be good classifiers. They must learn what a trigger teaches, and learn it as early as a large network
would.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from threading import Event, Lock, Semaphore
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from diffclean.classifiers.networks import unit_floats
from diffclean.datasets.pixels import ImageSet, Statistics
from diffclean.errors import Interrupted
from diffclean.progress import Progress
from diffclean.training.augment import crop_and_flip
from diffclean.training.precision import autocast, resolved_precision

WIDTH = 24
"""The number of channels after the first convolution. Images of 32 px train at about 3,500 images a second on one CPU
core with AMX."""
RATE = 4e-3
"""The peak learning rate of AdamW."""
BATCH = 128
GROUP_BATCH = 64
"""The batch size for learning a group: groups have few images, and every step sees half a batch of them."""
_WEIGHT_DECAY = 0.02
_MAP = 32
"""About the side of the feature map after the first convolutions for images of 64 px and more; half of it for images of
32 px. It limits the cost of large images. On coarser maps fine noise is not learned."""
_APART = 1_000_003
"""Between the seeds of the weights in two searches; no search has as many networks."""
_BATCH_TO_ASK = 256


class SmallNet(nn.Module):
    """Six convolutions or more with 0.2 million parameters: (B, 3, H, W) float in [0, 1] -> (B, outputs) logits.

    The first convolutions halve the map until it has about 32 px a side, in windows that overlap, so every pixel is
    seen. They do so step by step: one convolution with large windows was seen not to learn fine noise on images of
    128 px. The mean and the maximum of the last map are added, so that a small patch counts as much as a pattern over
    the whole image.

    Args:
        outputs: the number of logits.
        side: the shorter side of the images, in pixels.
        statistics: mean and standard deviation of the images' channels.
        width: the number of channels after the first convolutions.
    """

    def __init__(self, outputs: int, side: int, statistics: Statistics, width: int = WIDTH) -> None:
        super().__init__()
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in statistics)
        self.mean, self.std = nn.Buffer(mean), nn.Buffer(std)
        self.body = nn.Sequential(
            *_entrance(side, width),
            *_convolution(width, width),
            *_convolution(width, 2 * width, stride=2),
            *_convolution(2 * width, 2 * width),
            *_convolution(2 * width, 4 * width, stride=2),
            *_convolution(4 * width, 4 * width),
        )
        self.head = nn.Linear(4 * width, outputs)

    def forward(self, images: Tensor) -> Tensor:
        """Map (B, 3, H, W) float in [0, 1] to (B, outputs) logits."""
        maps = self.body((images - self.mean) / self.std)
        logits: Tensor = self.head(maps.mean((2, 3)) + maps.amax((2, 3)))
        return logits

    def fused(self) -> SmallNet:
        """A copy for evaluation in which each batch norm is part of its convolution, which is faster."""
        net = copy.deepcopy(self).eval()
        fused: list[nn.Module] = []
        for layer in net.body:
            if isinstance(layer, nn.BatchNorm2d):
                convolution = fused.pop()
                assert isinstance(convolution, nn.Conv2d)
                layer = fuse_conv_bn_eval(convolution, layer)
            fused.append(layer)
        net.body = nn.Sequential(*fused)
        return net.to(memory_format=torch.channels_last)


def _entrance(side: int, width: int) -> tuple[nn.Module, ...]:
    """Convolutions that halve the map, at least once, until it has about `_MAP` px a side; smaller images keep it."""
    if side < _MAP:
        return _convolution(3, width)
    halvings = max(1, round(math.log2(side / _MAP)))
    if halvings == 1:
        return _convolution(3, width, 2, kernel=4)
    narrow = width // 2  # on the largest map, which costs most
    further = [layer for _ in range(halvings - 2) for layer in _convolution(width, width, 2)]
    return *_convolution(3, narrow, 2, kernel=4), *_convolution(narrow, width, 2), *further


def _convolution(n_in: int, n_out: int, stride: int = 1, kernel: int = 3) -> tuple[nn.Module, ...]:
    return nn.Conv2d(n_in, n_out, kernel, stride, 1, bias=False), nn.BatchNorm2d(n_out), nn.ReLU()


@dataclass(frozen=True)
class Workbench:
    """What all networks of one judgement share.

    Attributes:
        images: (N, 3, H, W) uint8, all images that networks may be trained on.
        statistics: mean and standard deviation of the images' channels.
        device: the torch device on which networks run.
        seed: the seed of the weights, of the order of the images and of their shifts.
        progress: is advanced for each image that is trained on.
        stop: an event; once it is set, the work stops.
        cores: the number of cores to use.
        lock: guards what threads share: torch's global random numbers and the progress.
        turns: lets as many networks be trained at the same time as there are cores.
    """

    images: Tensor
    statistics: Statistics
    device: torch.device
    seed: int
    progress: Progress
    stop: Event | None = None
    cores: int = field(default_factory=torch.get_num_threads)
    lock: Lock = field(default_factory=Lock)
    turns: Semaphore = field(default_factory=lambda: Semaphore(torch.get_num_threads()))

    def network(self, outputs: int, seed: int, width: int = WIDTH) -> SmallNet:
        """Create a new network. The same seeds give the same weights.

        A search with the default seed, 1, has the weights of earlier versions, which chose them by `seed` alone.
        """
        with self.lock, torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed + _APART * (self.seed - 1))
            side = min(self.images.shape[2:])
            net = SmallNet(outputs, side, self.statistics, width)
        return net.to(self.device).to(memory_format=torch.channels_last)

    @cached_property
    def precision(self) -> str:
        """The fastest precision on this device; to find it takes too long to ask at every step."""
        return resolved_precision(None, self.device)

    def autocast(self) -> AbstractContextManager[object]:
        """Compute in the fastest precision on this device."""
        return autocast(self.device, self.precision)


Result = TypeVar("Result")


def together(bench: Workbench, tasks: Sequence[Callable[[], Result]]) -> list[Result]:
    """Run independent tasks in parallel, one core each, because small networks gain nothing from several cores each.

    Tasks may call this function themselves: all trainings take turns on the cores. On a GPU, the tasks run one after
    the other. The results are in the order of the tasks. With a different number of cores, sums are rounded
    differently, so a network can differ slightly.
    """
    if bench.device.type != "cpu" or min(bench.cores, len(tasks)) <= 1:
        return [task() for task in tasks]
    threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(len(tasks), initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(lambda task: task(), tasks))
    finally:
        torch.set_num_threads(threads)


Chooser = Callable[[int, np.random.Generator], Tensor]
"""(step, random numbers) -> (B,) int64, the numbers of the images of a step."""
Loss = Callable[[Tensor, Tensor], Tensor]
"""((B, outputs) float32 logits, (B,) int64 numbers of the images) -> the loss."""


def fit(
    bench: Workbench,
    net: SmallNet,
    steps: int,
    choose: Chooser,
    loss_of: Loss,
    seed: int,
    watch: Callable[[int], None] | None = None,
) -> None:
    """Train a network in place with AdamW; the learning rate rises briefly and then falls linearly.

    Args:
        bench: the images, and what all networks share.
        net: the network; it is trained in place and left in evaluation mode.
        steps: the number of steps of the optimiser.
        choose: chooses the images of each step.
        loss_of: computes the loss that is minimised.
        seed: the seed for `choose` and for the random shifts and mirrorings.
        watch: called after each step with the number of steps done.

    Raises:
        Interrupted: `bench.stop` was set.
    """
    optimizer = torch.optim.AdamW(net.parameters(), lr=RATE, weight_decay=_WEIGHT_DECAY, fused=True)
    rng = np.random.default_rng([bench.seed, seed])
    pad = max(1, min(bench.images.shape[2:]) // 16)
    net.train()
    with bench.turns:
        for step in range(steps):
            if bench.stop is not None and bench.stop.is_set():
                raise Interrupted(
                    "Stopped during the search for suspects.",
                    "To start from the beginning, type the same command again.",
                )
            done = step / steps
            for group in optimizer.param_groups:
                group["lr"] = RATE * min(1.0, 0.1 + 5 * done, 0.02 + 1.25 * (1 - done))
            numbers = choose(step, rng)
            bits = rng.integers(0, 2**64, len(numbers), np.uint64)
            pixels = crop_and_flip(bench.images[numbers].to(bench.device), bits, pad)
            with bench.autocast():
                logits = net(unit_floats(pixels))
            loss = loss_of(logits.float(), numbers)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            with bench.lock:
                bench.progress.advance(len(numbers))
            if watch is not None:
                watch(step + 1)
                net.train()
    net.eval()


@torch.no_grad()
def ask(bench: Workbench, net: SmallNet, pixels: Tensor | ImageSet) -> Tensor:
    """Compute logits in evaluation mode.

    Args:
        bench: gives the device and the precision.
        net: the network; it is left in evaluation mode.
        pixels: (N, 3, H, W) uint8, or an image set that is read batch by batch.

    Returns:
        (N, outputs) float32 on the CPU.
    """
    net.eval()
    fast = net.fused()
    numbers = torch.arange(len(pixels)).split(_BATCH_TO_ASK)
    parts = (pixels[n] for n in numbers) if isinstance(pixels, Tensor) else pixels.batches(numbers)
    answers = []
    with bench.autocast():
        for part in parts:
            answers.append(fast(unit_floats(part.to(bench.device))).float().cpu())
    return torch.cat(answers) if answers else torch.zeros(0, net.head.out_features)


def learn_labels(
    bench: Workbench,
    labels: Tensor,
    chosen: Tensor,
    classes: int,
    epochs: int,
    seed: int,
    width: int = WIDTH,
    watch: Callable[[SmallNet], None] | None = None,
) -> SmallNet:
    """Train a classifier on the given labels, with rare classes weighted by the inverse square root of their size.

    Args:
        bench: the images, and what all networks share.
        labels: (N,) int64.
        chosen: (M,) int64, the numbers of the images to learn from.
        classes: the number of classes.
        epochs: how many times the network sees each image.
        seed: the seed of this network.
        width: the number of channels after the first convolution.
        watch: called with the network after each epoch.
    """
    net = bench.network(classes, seed, width)
    batch = min(BATCH, len(chosen))
    per_epoch = max(1, len(chosen) // batch)
    weights = torch.bincount(labels[chosen], minlength=classes).clamp_min(1).float().rsqrt()
    weights = (weights / weights[labels[chosen]].mean()).to(bench.device)
    order = [chosen]

    def choose(step: int, rng: np.random.Generator) -> Tensor:
        place = step % per_epoch
        if place == 0:
            order[0] = chosen[torch.from_numpy(rng.permutation(len(chosen)))]
        return order[0][place * batch : (place + 1) * batch]

    def loss_of(logits: Tensor, numbers: Tensor) -> Tensor:
        return F.cross_entropy(logits, labels[numbers].to(logits.device), weight=weights)

    def after(step: int) -> None:
        if watch is not None and step % per_epoch == 0:
            watch(net)

    fit(bench, net, epochs * per_epoch, choose, loss_of, seed, after if watch is not None else None)
    return net


def learn_group(
    bench: Workbench, group: Tensor, own: Tensor, others: Tensor, steps: int, seed: int, width: int
) -> SmallNet:
    """Train a classifier with one output that says whether an image belongs to the group.

    Half of every batch are images of the group. A quarter are images of the same label that do not belong to the group,
    and a quarter are images of other labels.

    Args:
        bench: the images, and what all networks share.
        group: (G,) int64, images that belong to the group.
        own: (M,) int64, images of the same label that do not belong to the group; may be empty.
        others: (O,) int64, images of other labels.
        steps: the number of training steps.
        seed: the seed of this network.
        width: the number of channels after the first convolution.
    """
    net = bench.network(1, seed, width)
    half = GROUP_BATCH // 2
    quarter = GROUP_BATCH // 4 if len(own) else 0
    truth = torch.zeros(GROUP_BATCH, device=bench.device)
    truth[:half] = 1

    def choose(_: int, rng: np.random.Generator) -> Tensor:
        parts = ((group, half), (own, quarter), (others, GROUP_BATCH - half - quarter))
        return torch.cat([one[torch.from_numpy(rng.integers(0, len(one), n))] for one, n in parts if n])

    def loss_of(logits: Tensor, _: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(logits[:, 0], truth)

    fit(bench, net, steps, choose, loss_of, seed)
    return net
