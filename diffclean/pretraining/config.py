"""The configuration of a pretraining run.

This module does not import torch, so that the command line reads it quickly.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from diffclean.errors import UsageError
from diffclean.pretraining.corruptions import Corruptions

_MOST_DECAY = 0.9
"""The largest decay share of a run whose length is given in minutes."""


@dataclass(frozen=True)
class PretrainConfig:
    """Everything that determines the result of `pretrain`. The defaults are those that made the shipped `micro`.

    Attributes:
        images: the number of images that the network sees in all (with repetition).
        minutes: how long it trains, in place of `images`; None if `images` determines the length. See `Length`.
        batch: the number of images in a step.
        learning_rate: the peak learning rate. It is warmed up over `warmup_steps`, held, then brought linearly to zero
            over the last `decay_share` of the run.
        ema: the decay of the exponential moving average of the weights, which is what is saved.
        channels, blocks, layers, heads: the shape of the network, see `MicroUNet`.
        view_dropout: the share of images whose view is withheld, for `--guidance`.
        low_resolution: the share of steps whose images are reduced to a random lower resolution and enlarged again,
            including their corruptions. This is what a small image with its trigger looks like when it is enlarged for
            the model.
        start_share: the share of examples at pure noise, where every run of the sampler begins and a short one ends.
        corrupt: whether the views are corrupted (False is the ablation).
        corruptions: how often each corruption occurs, at the resolution that the image has before it is enlarged.
        coarse_views: whether the view is averaged over cells of 2, 4 or 8 pixels, drawn for each image, and the network
            is given the size; if False, it is always 2, as in the first models. See `families.micro_view`.
        validate_every: the number of steps between two validations (loss on held-out images, a sample grid, a
            checkpoint).
    """

    images: int = 26_944
    minutes: float | None = None
    batch: int = 32
    learning_rate: float = 1.5e-3
    warmup_steps: int = 200
    decay_share: float = 0.0
    weight_decay: float = 0.01
    ema: float = 0.998
    view_dropout: float = 0.05
    low_resolution: float = 0.0
    start_share: float = 0.0
    corrupt: bool = True
    corruptions: Corruptions = field(default_factory=Corruptions)
    coarse_views: bool = False
    size: int = 64
    channels: int = 64
    blocks: int = 1
    layers: int = 4
    heads: int = 4
    seed: int = 1
    validate_every: int = 500

    def __post_init__(self) -> None:
        if self.size % 8:
            raise UsageError(f"`size` {self.size} must be a multiple of 8.")
        for name, share in (("low_resolution", self.low_resolution), ("start_share", self.start_share)):
            if not 0 <= share <= 1:
                raise UsageError(f"`{name}` {share} (0 to 1)")
        if 4 * self.channels % self.heads:
            raise UsageError(f"`heads` {self.heads} must divide four times `channels` {self.channels}.")
        if not 0 <= self.seed < 2**32:
            raise UsageError(f"`seed` {self.seed} (0 to 2^32 - 1)")
        if self.minutes is not None and self.minutes <= 0:
            raise UsageError(f"`minutes` {self.minutes} (above 0)")
        if self.minutes is not None and self.decay_share > _MOST_DECAY:
            raise UsageError(
                f"`decay_share` {self.decay_share} is too large for `minutes`, because the number of steps is measured "
                f"before the rate falls.",
                f"Give at most {_MOST_DECAY}, or `images` in place of `minutes`.",
            )

    @property
    def steps(self) -> int | None:
        """The number of optimiser steps in all; None if the length is given in minutes."""
        return None if self.minutes is not None else max(1, self.images // self.batch)


def learning_rate_at(step: int, config: PretrainConfig, steps: int | None) -> float:
    """The learning rate of a step: it is warmed up, held, and decays linearly to zero.

    While the rate is held, a run can be extended without starting again.

    Args:
        step: the step, from 0.
        config: the configuration, see `PretrainConfig`.
        steps: the number of steps in all; None if it is not known yet, and the rate is held.
    """
    warm = min(1.0, (step + 1) / max(1, config.warmup_steps))
    left = 1.0 if steps is None else min(1.0, (steps - step) / _decay_steps(steps, config))
    return config.learning_rate * warm * max(left, 0.0)


def _decay_steps(steps: int, config: PretrainConfig) -> int:
    return max(1, round(steps * config.decay_share))


class Length:
    """The number of steps of a run, which is given by `images`, or found while the run trains for `minutes`.

    The learning rate is held until it falls in the last share of the run, so the number of steps need not be known
    before. When only that share of the `minutes` is left, the number of steps so far determines the total. From then on
    the run is the same as one that was given that number of images: it ends with the same weights, bit for bit, on the
    same machine. Another machine, or the same machine under another load, comes to another number of steps.

    Only the time of steps counts. The first step of a process does not count, because networks are compiled in it, and
    neither do validation, checkpoints and pictures.
    """

    def __init__(self, config: PretrainConfig) -> None:
        self.config = config
        self.steps = config.steps
        self.seconds = 0.0
        self._is_first = True

    def spend(self, step: int, seconds: float) -> bool:
        """Count the time of a step; return whether the number of steps has just become known.

        Args:
            step: the number of finished steps.
            seconds: the duration of the last step.
        """
        self.seconds += 0.0 if self._is_first else seconds
        self._is_first = False
        if self.steps is not None or self.config.minutes is None:
            return False
        if self.seconds < 60 * self.config.minutes * (1 - self.config.decay_share):
            return False
        steps = step
        while steps - (_decay_steps(steps, self.config) if self.config.decay_share else 0) < step:
            steps += 1
        self.steps = steps
        return True

    def over(self, step: int) -> bool:
        """Whether all steps are done."""
        return self.steps is not None and step >= self.steps

    def state(self) -> dict[str, float | int | None]:
        """The state for a checkpoint."""
        return {"minutes": self.config.minutes, "steps": self.steps, "seconds": self.seconds}

    def restore(self, state: dict[str, float | int | None]) -> None:
        """Continue from a checkpoint. A number of steps that was found for the same number of minutes is kept."""
        self.seconds = float(state["seconds"] or 0.0)
        if self.config.minutes is not None and self.config.minutes == state["minutes"] and state["steps"]:
            self.steps = int(state["steps"])
