"""The settings of the training loop, for any loss. This module does not import torch, so that a dry run is fast."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

LEARNING_RATES = {"sgd": 0.1, "adamw": 1e-3, "muon": 0.24}
WEIGHT_DECAYS = {"sgd": 5e-4, "adamw": 0.05, "muon": 0.12}
SCHEDULES = ("cosine", "linear", "multi-step", "constant")
FLIPS = ("random", "alternating", "none")
PRECISIONS = ("bf16", "fp16", "fp32")
_MUON_STEPS = 200
"""The number of steps for which Muon's defaults are meant; in a longer run they shrink."""

_NOT_IN_IDENTITY = ("device", "precision", "save_every_s", "memory_gib", "tensorboard")


@dataclass(frozen=True)
class LoopConfig:
    """The settings of the training loop.

    Attributes:
        epochs: how many times each image is seen.
        batch_size: the number of images in a step, over all processes.
        optimizer: sgd (with Nesterov momentum), adamw, or muon (with AdamW for biases and the last layer).
        learning_rate: the learning rate at its peak; None stands for that in `LEARNING_RATES`, with muon less in long
            runs.
        momentum: the momentum of SGD.
        weight_decay: the weight decay; None stands for that in `WEIGHT_DECAYS`, with muon less in long runs.
        schedule: with "cosine", the rate rises linearly over the share `warmup` of the steps, then follows half a
            cosine to zero (one cycle; Smith and Topin 2017, arXiv 1708.07120). With "linear" it falls evenly to zero.
            With "multi-step" it falls to a tenth at each of `milestones`. With "constant" it stays. The last three rise
            first only if a `warmup` is given.
        warmup: the share of the steps in which the rate rises; None stands for 0.2 with cosine, else 0.
        milestones: where multi-step lowers the rate, as shares of the run.
        ema: the decay of an exponential moving average of the weights, which is then what is measured and written; 0
            turns it off.
        augment: whether images are cropped and flipped at random.
        flip: whether flips are "random", or "alternating": each image is mirrored in every other epoch; "none": no
            image is mirrored, because that would change what it shows.
        shift: the largest random shift, as a share of the shorter side.
        turn: the largest random turn, in degrees.
        zoom: images are scaled at random by a factor from 1/(1 + zoom) to 1 + zoom.
        validation_share: the share of the images, chosen by their names, that is held out and measured after each
            epoch.
        patience: the number of epochs without a lower validation loss after which training stops, and the best epoch is
            written; None stands for never.
        precision: bf16 or fp16 (autocast), or fp32; None stands for the fastest on this machine.
        compile: whether the network is compiled with torch.compile.
        device: a torch device; None stands for CUDA where it works, else the CPU.
        seed: the seed of the initial weights, the order of the images and the augmentation.
        save_every_s: the seconds between two saved states, from which a killed run can continue.
        memory_gib: the memory for decoded images; a larger set is read again in each epoch. None stands for half of the
            free memory.
        tensorboard: whether TensorBoard event files are written too.
    """

    epochs: int = 20
    batch_size: int = 128
    optimizer: str = "sgd"
    learning_rate: float | None = None
    momentum: float = 0.9
    weight_decay: float | None = None
    schedule: str = "cosine"
    warmup: float | None = None
    milestones: tuple[float, ...] = (0.5, 0.75)
    ema: float = 0.0
    augment: bool = True
    flip: str = "random"
    shift: float = 0.125
    turn: float = 0.0
    zoom: float = 0.0
    validation_share: float = 0.0
    patience: int | None = None
    precision: str | None = None
    compile: bool = False
    device: str | None = None
    seed: int = 1
    save_every_s: float = 30.0
    memory_gib: float | None = None
    tensorboard: bool = True

    @property
    def changes_images(self) -> bool:
        """Whether an image looks different each time that it is shown."""
        return self.augment or self.turn > 0 or self.zoom > 0

    def peak_rate(self, steps: int = 1) -> float:
        """The learning rate of a run of so many steps, with its default filled in."""
        return (
            LEARNING_RATES[self.optimizer] * self._shrunk(steps) if self.learning_rate is None else self.learning_rate
        )

    def decay(self, steps: int = 1) -> float:
        """The weight decay of a run of so many steps, with its default filled in."""
        default = WEIGHT_DECAYS[self.optimizer] * self._shrunk(steps)
        return default if self.weight_decay is None else self.weight_decay

    def _shrunk(self, steps: int) -> float:
        """What is left of Muon's defaults in a long run.

        An update by Muon has one size, whatever the gradient, so a kernel forgets its past in about 1 / rate^2 steps.
        That should be a fixed share of the run.
        """
        return min(1.0, math.sqrt(_MUON_STEPS / steps)) if self.optimizer == "muon" else 1.0

    @property
    def warmup_share(self) -> float:
        """The warm-up, with its default filled in."""
        return (0.2 if self.schedule == "cosine" else 0.0) if self.warmup is None else self.warmup

    def identity(self) -> dict[str, Any]:
        """The resolved settings that determine the weights. A run can be resumed only with the same."""
        content = {name: value for name, value in asdict(self).items() if name not in _NOT_IN_IDENTITY}
        resolved = {"learning_rate": self.peak_rate(), "weight_decay": self.decay(), "warmup": self.warmup_share}
        return content | resolved | {"milestones": list(self.milestones)}

    def problems(self) -> list[str]:
        """Every setting that is invalid."""
        positive = self.learning_rate is None or self.learning_rate > 0
        decaying = self.weight_decay is None or self.weight_decay >= 0
        risen = self.warmup is None or 0 <= self.warmup < 1
        ordered = list(self.milestones) == sorted({*self.milestones}) and all(0 < m < 1 for m in self.milestones)
        rules = (
            ("epochs", "at least 1", self.epochs >= 1),
            ("batch_size", "at least 2 (batch normalisation)", self.batch_size >= 2),
            ("optimizer", ", ".join(LEARNING_RATES), self.optimizer in LEARNING_RATES),
            ("learning_rate", "above 0", positive),
            ("weight_decay", "0 or more", decaying),
            ("schedule", ", ".join(SCHEDULES), self.schedule in SCHEDULES),
            ("flip", ", ".join(FLIPS), self.flip in FLIPS),
            ("warmup", "in [0, 1)", risen),
            ("milestones", "rising shares of the run, between 0 and 1", ordered),
            ("ema", "in [0, 1)", 0 <= self.ema < 1),
            ("shift", "in [0, 0.5]", 0 <= self.shift <= 0.5),
            ("turn", "in [0, 180]", 0 <= self.turn <= 180),
            ("zoom", "in [0, 3]", 0 <= self.zoom <= 3),
            ("validation_share", "in [0, 0.9]", 0 <= self.validation_share <= 0.9),
            ("patience", "at least 1", self.patience is None or self.patience >= 1),
            ("memory_gib", "0 or more", self.memory_gib is None or self.memory_gib >= 0),
            ("precision", "bf16, fp16 or fp32", self.precision is None or self.precision in PRECISIONS),
        )
        wrong = [f"`{name}` must be {what}, not {getattr(self, name)}" for name, what, holds in rules if not holds]
        if self.patience is not None and self.validation_share == 0:
            wrong.append("`patience` needs images to measure on, such as `validation_share` 0.1")
        return wrong
