"""Optimisers, the schedule of the learning rate, and the moving average of the weights."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

from diffclean.training.loop_config import LoopConfig
from diffclean.training.muon import MuonAndAdamW, MuonSettings

_MILESTONE_FACTOR = 0.1
_LOWEST_AT_START = 0.02
_MUON_MOMENTUM = 0.6
_REST_SHARE = 0.08
"""The learning rate of biases and of the last layer, as a share of Muon's."""


def optimizer_for(model: nn.Module, config: LoopConfig, steps: int = 1) -> torch.optim.Optimizer | MuonAndAdamW:
    """SGD with Nesterov momentum, AdamW, or Muon for the kernels of all layers but the last and AdamW for the rest.

    Args:
        model: the network.
        config: the settings.
        steps: the number of steps in the run.
    """
    rate, decay = config.peak_rate(steps), config.decay(steps)
    if config.optimizer == "muon":
        # In short trainings, a lower momentum and fewer steps of the iteration learn as much (Jordan 2024).
        settings = MuonSettings(
            rate,
            decay,
            momentum=_MUON_MOMENTUM,
            steps=3,
            adjustment="original",
            rest_share=_REST_SHARE,
            last_by_muon=False,
        )
        return MuonAndAdamW(model, settings)
    if config.optimizer == "adamw":
        return torch.optim.AdamW(model.parameters(), rate, weight_decay=decay, foreach=True)
    return torch.optim.SGD(
        model.parameters(),
        rate,
        momentum=config.momentum,
        weight_decay=decay,
        nesterov=config.momentum > 0,
        foreach=True,
    )


def rate_share(done: float, config: LoopConfig) -> float:
    """The share of the peak learning rate after `done` in [0, 1) of the run; see `LoopConfig.schedule`."""
    warmup = config.warmup_share
    if done < warmup:
        return max(done / warmup, _LOWEST_AT_START)
    if config.schedule == "linear":
        return (1 - done) / (1 - warmup)
    if config.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * (done - warmup) / (1 - warmup)))
    if config.schedule == "multi-step":
        return float(_MILESTONE_FACTOR ** sum(done >= milestone for milestone in config.milestones))
    return 1.0


class WeightAverage:
    """An exponential moving average of a network's weights and running means.

    Args:
        model: the network to average.
        decay: the share of the average that is kept in each step; it is lower in the first steps, which the average
            should soon forget.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(model).requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Move the average towards `model`; `step` is the number of steps before this one."""
        decay = min(self.decay, (1 + step) / (10 + step))
        pairs = list(zip(_tensors(self.model), _tensors(model), strict=True))
        floats = [(mine, now) for mine, now in pairs if mine.is_floating_point()]
        torch._foreach_lerp_([mine for mine, _ in floats], [now for _, now in floats], 1 - decay)
        for mine, now in pairs:
            if not mine.is_floating_point():  # batch normalisation's count of batches
                mine.copy_(now)


def _tensors(model: nn.Module) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]
