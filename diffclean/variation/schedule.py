"""A scheduler as a triangle of numbers.

DDIM, DPM-Solver++, UniPC and Euler are linear: what the denoiser sees at a step, and the final sample, are weighted
sums of the first sample and of the outputs so far. So diffusers' scheduler is run once, on unit vectors, and what comes
out are the weights. The denoising loop then needs no scheduler: no history to reset, nothing read back from a device,
and every scheduler that is linear works as it is.
"""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from diffclean.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)

SCHEDULERS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "ddim": ("DDIMScheduler", {}),
    "dpm++": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++", "solver_order": 2}),
    "unipc": ("UniPCMultistepScheduler", {}),
    "euler": ("EulerDiscreteScheduler", {}),
}
"""Name on the command line -> diffusers' class, and what it is told beside the model's own configuration."""

_NEAREST = {
    "PNDMScheduler": "ddim",
    "LMSDiscreteScheduler": "euler",
    "HeunDiscreteScheduler": "euler",
    "EulerAncestralDiscreteScheduler": "euler",
    "DPMSolverSinglestepScheduler": "dpm++",
    "DEISMultistepScheduler": "dpm++",
    "DPMSolverSDEScheduler": "dpm++",
    "KDPM2DiscreteScheduler": "dpm++",
    "DDPMScheduler": "ddim",
}
"""Schedulers that a model may come with -> the nearest of ours. All are solvers of the same equation."""


def scheduler_for(config: Mapping[str, Any]) -> str:
    """The name of the scheduler nearest to a model's own; a note in the log says so where it is not the same."""
    found = str(config.get("_class_name", "DDIMScheduler"))
    for name, (class_name, _) in SCHEDULERS.items():
        if class_name == found:
            return name
    name = _NEAREST.get(found, "ddim")
    log.info("The model's scheduler is %s; %s stands in for it (`scheduler` chooses another).", found, name)
    return name


def scheduler_named(name: str, config: Mapping[str, Any]) -> Any:
    """A diffusers scheduler on the model's own noise schedule, without clipping or thresholding (they are not linear).

    Raises:
        UsageError: unknown name.
    """
    import diffusers

    if name not in SCHEDULERS:
        raise UsageError(f"There is no scheduler {name!r}.", f"Known: {', '.join(SCHEDULERS)}.")
    class_name, extra = SCHEDULERS[name]
    cls = getattr(diffusers, class_name)
    accepted = inspect.signature(cls.__init__).parameters
    kept = {key: value for key, value in config.items() if key in accepted}
    kept |= {key: False for key in ("clip_sample", "thresholding") if key in accepted}
    return cls.from_config(kept, **extra)


@dataclass(frozen=True)
class Schedule:
    """What a run of the denoiser does, as numbers.

    Attributes:
        timesteps: what the denoiser is told, a step; noisiest first.
        noise_levels: the same as a share of the schedule: 1 is pure noise, 0 the image.
        start: weights of the source's latent and of the noise in the first sample.
        inputs: a row a step: weights of (first sample, output 0, output 1, ...) in what the denoiser sees.
        final: the same for the final sample.
    """

    timesteps: tuple[float, ...]
    noise_levels: tuple[float, ...]
    start: tuple[float, float]
    inputs: tuple[tuple[float, ...], ...]
    final: tuple[float, ...]


def schedule_of(name: str, config: Mapping[str, Any], steps: int, start: float = 1.0) -> Schedule:
    """Work out a schedule.

    Args:
        name: one of `SCHEDULERS`.
        config: the model's noise schedule, as diffusers stores it.
        steps: denoising steps of a run from pure noise.
        start: share of the schedule that is run, as in diffusers' image-to-image pipelines.

    Raises:
        UsageError: unknown name; a share that is less than one step.
    """
    import torch

    scheduler = scheduler_named(name, config)
    scheduler.set_timesteps(steps)
    if int(steps * start) < 1:
        raise UsageError(
            f"{start:g} of {steps} steps is less than one: nothing would be regenerated.",
            f"Give more `steps` (at least {math.ceil(1 / start)}) or more `strength`.",
        )
    first = steps - min(steps, int(steps * start))
    timesteps = scheduler.timesteps[first:]
    weights = (0.0, float(scheduler.init_noise_sigma))
    if start < 1:
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(first)
        latent, noise = torch.eye(2)[:, None, None, None]
        noised = scheduler.add_noise(latent, noise, timesteps[:1])
        weights = (float(noised.flatten()[0]), float(noised.flatten()[1]))
    # Four axes, since schedulers expect an image batch; the last holds the weights.
    units = torch.eye(len(timesteps) + 1, dtype=torch.float64)[:, None, None, None]
    sample, inputs = units[0], []
    for index, timestep in enumerate(timesteps):
        inputs.append(_weights(scheduler.scale_model_input(sample, timestep), index + 1))
        sample = scheduler.step(units[index + 1], timestep, sample, return_dict=False)[0]
    trained = int(config.get("num_train_timesteps", 1000))
    times = tuple(float(timestep) for timestep in timesteps)
    levels = tuple((time + 1) / trained for time in times)
    return Schedule(times, levels, weights, tuple(inputs), _weights(sample, len(units)))


def _weights(sample: Tensor, count: int) -> tuple[float, ...]:
    return tuple(float(weight) for weight in sample.flatten()[:count])


def weighted_sum(weights: Sequence[float], tensors: Sequence[Tensor]) -> Tensor:
    """Sum of `weights[i] * tensors[i]`, element by element, so that an image's bytes depend on its own row alone."""
    total = tensors[0] * weights[0]
    for weight, tensor in zip(weights[1:], tensors[1:], strict=True):
        if weight:
            total.add_(tensor, alpha=weight)
    return total
