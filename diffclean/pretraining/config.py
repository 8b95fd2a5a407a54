"""What decides a pretraining run. Free of torch, so that the command line can read it quickly."""

from __future__ import annotations

from dataclasses import dataclass, field

from diffclean.errors import UsageError
from diffclean.pretraining.corruptions import Corruptions

_MOST_DECAY = 0.9
"""Of a run whose length is told in minutes."""


@dataclass(frozen=True)
class PretrainConfig:
    """All that decides what comes out of `pretrain`. The defaults are those that made the shipped `micro`.

    Attributes:
        images: how many images the network sees in all (with repetition).
        minutes: how long it trains, in place of `images`; None: `images` decides. See `Length`.
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
        corruptions: how often each corruption strikes, at the resolution that the image has before it is enlarged.
        coarse_views: average the view over cells of 2, 4 or 8 pixels, drawn an image, and tell the network which;
            False: always 2, as the first models had it. See `families.micro_view`.
        validate_every: steps between two validations (loss on held-out images, a sample grid, a checkpoint).
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
                f"`decay_share` {self.decay_share} is too much for `minutes`: how many steps the run has is measured "
                f"before the rate falls.",
                f"Give at most {_MOST_DECAY}, or `images` in place of `minutes`.",
            )

    @property
    def steps(self) -> int | None:
        """Optimiser steps in all; None: the time will tell."""
        return None if self.minutes is not None else max(1, self.images // self.batch)


def learning_rate_at(step: int, config: PretrainConfig, steps: int | None) -> float:
    """Warm up, hold, decay linearly to zero: a held rate lets a run be extended without starting again.

    Args:
        step: from 0.
        config: see `PretrainConfig`.
        steps: in all; None: not known yet, the rate is held.
    """
    warm = min(1.0, (step + 1) / max(1, config.warmup_steps))
    left = 1.0 if steps is None else min(1.0, (steps - step) / _decay_steps(steps, config))
    return config.learning_rate * warm * max(left, 0.0)


def _decay_steps(steps: int, config: PretrainConfig) -> int:
    return max(1, round(steps * config.decay_share))


class Length:
    """How many steps a run has: told by `images`, or found while it runs for `minutes`.

    The rate is held until it falls in the last share of the run, so the number of steps has to be known only then.
    When `minutes` are spent but for that share, the steps so far say how many there will be, and from then on the run
    is one that was told so many images: the same weights, bit for bit, on the same machine. Another machine, or the
    same one in another mood, comes to another number of steps.

    What counts is the time of steps. The first one of a process does not, in which networks are compiled; nor do
    validation, checkpoints and pictures.
    """

    def __init__(self, config: PretrainConfig) -> None:
        self.config = config
        self.steps = config.steps
        self.seconds = 0.0
        self._is_first = True

    def spend(self, step: int, seconds: float) -> bool:
        """Count the time of a step; returns whether the number of steps has just become known.

        Args:
            step: how many are done.
            seconds: that the last one took.
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
        """For a checkpoint."""
        return {"minutes": self.config.minutes, "steps": self.steps, "seconds": self.seconds}

    def restore(self, state: dict[str, float | int | None]) -> None:
        """Go on from a checkpoint. A number of steps that was found for as many minutes stands."""
        self.seconds = float(state["seconds"] or 0.0)
        if self.config.minutes is not None and self.config.minutes == state["minutes"] and state["steps"]:
            self.steps = int(state["steps"])
