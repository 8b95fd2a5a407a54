"""Finds the weights of a linear scheduler: diffusers' own scheduler is run once, on unit vectors.

A unit vector stands for each thing that the samples are sums of: the first sample, the outputs of the denoiser, and the
noise that a stochastic scheduler adds. After the run, the numbers in a sample are its weights.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


def unit_run(
    scheduler: Any, timesteps: Tensor, stochastic: bool
) -> tuple[list[tuple[float, ...]], tuple[float, ...], list[bool]]:
    """Run a scheduler on unit vectors.

    Args:
        scheduler: a scheduler of diffusers whose timesteps are set.
        timesteps: the timesteps to run.
        stochastic: whether it may draw noise after a step.

    Returns:
        `inputs`, `final` and `draws` of a `Schedule`.

    Raises:
        ValueError: the noise does not enter linearly.
    """
    import torch

    # There are four axes because schedulers expect a batch of images; the last axis holds the weights.
    units = torch.eye(1 + len(timesteps) * (2 if stochastic else 1), dtype=torch.float64)[:, None, None, None]
    sample, seen = units[0], 1
    inputs, draws = [], []
    for timestep in timesteps:
        scaled = scheduler.scale_model_input(sample, timestep) if hasattr(scheduler, "scale_model_input") else sample
        inputs.append(_weights(scaled, seen))
        weight, added = _noise_of(scheduler, timestep, units[0]) if stochastic else (0.0, 0.0)
        drawing = {"generator": torch.Generator().manual_seed(0)} if stochastic else {}
        sample = scheduler.step(units[seen], timestep, sample, return_dict=False, **drawing)[0]
        seen += 1
        if weight:
            sample = sample - added + weight * units[seen]
            seen += 1
        draws.append(bool(weight))
    return inputs, _weights(sample, seen), draws


def _noise_of(scheduler: Any, timestep: Tensor, like: Tensor) -> tuple[float, Tensor]:
    """The weight of the noise that the next step adds, and that noise with its weight, drawn with seed 0.

    A step from zeros, of a copy of the scheduler, consists of the noise alone.
    """
    import torch

    zeros = torch.zeros_like(like)
    generator = torch.Generator().manual_seed(0)
    apart = copy.deepcopy(scheduler)
    added: Tensor = apart.step(zeros, timestep, zeros, return_dict=False, generator=generator)[0].double()
    noise = torch.randn(zeros.shape, generator=torch.Generator().manual_seed(0), dtype=zeros.dtype)
    weight = float((added * noise).sum() / (noise * noise).sum())
    if not torch.allclose(added, weight * noise, rtol=1e-5, atol=1e-7):
        raise ValueError("the noise that it adds cannot be told apart from the rest")
    return weight, added


def _weights(sample: Tensor, count: int) -> tuple[float, ...]:
    return tuple(float(weight) for weight in sample.flatten()[:count])
