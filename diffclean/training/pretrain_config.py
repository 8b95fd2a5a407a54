"""What decides a pretraining run. Free of torch, so that the command line can read it quickly."""

from __future__ import annotations

from dataclasses import dataclass, field

from diffclean.errors import UsageError
from diffclean.training.corruptions import Corruptions


@dataclass(frozen=True)
class PretrainConfig:
    """All that decides what comes out of `pretrain`.

    Attributes:
        images: how many images the network sees in all (with repetition).
        batch: images a step.
        learning_rate: peak; warmed up over `warmup_steps`, held, then brought linearly to zero over the
            last `decay_share` of the run.
        ema: decay of the exponential moving average of the weights, which is what is saved.
        channels, blocks, layers, heads: of the network, see `MicroUNet`.
        view_dropout: share of images whose view is withheld, for `--guidance`.
        low_resolution: share of steps whose images are brought to a random lower resolution and back, corruptions
            included: what a small image, enlarged for the model, looks like with its trigger.
        start_share: share of examples at pure noise, where every run of the sampler begins and a short one ends.
        corrupt: train on corrupted views (False: the ablation).
        validate_every: steps between two validations (loss on held-out images, a sample grid, a checkpoint).
    """

    images: int = 500_000
    batch: int = 32
    learning_rate: float = 1.5e-3
    warmup_steps: int = 200
    decay_share: float = 0.25
    weight_decay: float = 0.01
    ema: float = 0.998
    view_dropout: float = 0.05
    low_resolution: float = 0.0
    start_share: float = 0.0
    corrupt: bool = True
    corruptions: Corruptions = field(default_factory=Corruptions)
    size: int = 64
    channels: int = 64
    blocks: int = 1
    layers: int = 4
    heads: int = 4
    seed: int = 1
    validate_every: int = 500

    def __post_init__(self) -> None:
        if self.size % 8:
            raise UsageError(f"--size {self.size} must be a multiple of 8.")
        for name, share in (("low-resolution", self.low_resolution), ("start-share", self.start_share)):
            if not 0 <= share <= 1:
                raise UsageError(f"--{name} {share} (0 to 1)")
        if 4 * self.channels % self.heads:
            raise UsageError(f"--heads {self.heads} must divide four times --channels {self.channels}.")
        if not 0 <= self.seed < 2**32:
            raise UsageError(f"--seed {self.seed} (0 to 2^32 - 1)")

    @property
    def steps(self) -> int:
        """Optimiser steps in all."""
        return max(1, self.images // self.batch)


def learning_rate_at(step: int, config: PretrainConfig) -> float:
    """Warm up, hold, decay linearly to zero: a held rate lets a run be extended without starting again."""
    decay_steps = max(1, round(config.steps * config.decay_share))
    warm = min(1.0, (step + 1) / max(1, config.warmup_steps))
    left = min(1.0, (config.steps - step) / decay_steps)
    return config.learning_rate * warm * max(left, 0.0)
