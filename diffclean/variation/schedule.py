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

from diffclean.errors import DiffcleanError, UsageError
from diffclean.families.schedulers import NEAREST, check_scheduler

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)

_DECIDE = ("num_train_timesteps", "beta_schedule", "prediction_type", "timestep_spacing", "steps_offset",
           "rescale_betas_zero_snr", "use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas")  # fmt: skip
"""The keys of a configuration that a message names."""
_ANOTHER = "Try other `steps` or another `scheduler`, or mend the model's scheduler_config.json."

SCHEDULERS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "ddim": ("DDIMScheduler", {}),
    "dpm++": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++", "solver_order": 2}),
    "unipc": ("UniPCMultistepScheduler", {}),
    "euler": ("EulerDiscreteScheduler", {}),
}
"""Name on the command line -> diffusers' class, and what it is told beside the model's own configuration."""


def scheduler_for(config: Mapping[str, Any]) -> str:
    """The name of the scheduler nearest to a model's own; what of it is not followed is noted in the log.

    Raises:
        DiffcleanError: the model's own solves another equation.
    """
    check_scheduler(config, "The model")
    name = NEAREST[config["_class_name"]]
    for difference in differences(name, config):
        log.info("Note: %s (`scheduler` chooses another).", difference)
    return name


def differences(name: str, config: Mapping[str, Any]) -> list[str]:
    """What of a model's own scheduler is not followed when it is sampled with one of ours, a phrase each."""
    found = str(config.get("_class_name", ""))
    class_name, ours = SCHEDULERS[name]
    if found and found != class_name:
        return [f"{name} stands in for the model's own scheduler, {found}"]
    defaults = {"algorithm_type": "dpmsolver++", "solver_order": 2}
    return [
        f"the model's {key} {config.get(key)} is taken as {value}"
        for key, value in ours.items()
        if config.get(key, defaults.get(key)) != value
    ]


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
    kept |= {key: value for key, value in _own_betas(config).items() if key not in kept}
    return cls.from_config(kept, **extra)


def _own_betas(config: Mapping[str, Any]) -> dict[str, Any]:
    """The noise schedule that a model's own class has where its configuration does not say: classes differ in it."""
    import diffusers

    own = getattr(diffusers, str(config.get("_class_name")), None)
    parameters = inspect.signature(own.__init__).parameters if own is not None else {}
    names = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule")
    return {name: parameters[name].default for name in names if name in parameters}


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
        DiffcleanError: diffusers cannot make it, or it comes to numbers that are not finite; names the settings.
    """
    if config.get("_class_name"):
        check_scheduler(config, "The model")
    if name not in SCHEDULERS:
        raise UsageError(f"There is no scheduler {name!r}.", f"Known: {', '.join(SCHEDULERS)}.")
    asked = ", ".join(f"{key} {config[key]}" for key in _DECIDE if config.get(key) is not None)
    try:
        schedule = _worked_out(name, config, steps, start)
    except (
        ArithmeticError,
        ImportError,
        IndexError,
        NotImplementedError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DiffcleanError(f"{name} cannot take {steps} steps with {asked}: {reason}", _ANOTHER) from error
    numbers = [*schedule.timesteps, *schedule.start, *schedule.final, *(w for row in schedule.inputs for w in row)]
    if not all(map(math.isfinite, numbers)):
        raise DiffcleanError(f"{name} with {steps} steps and {asked} comes to weights that are not finite.", _ANOTHER)
    return schedule


def _worked_out(name: str, config: Mapping[str, Any], steps: int, start: float) -> Schedule:
    import torch

    trained = int(config.get("num_train_timesteps", 1000))
    scheduler = scheduler_named(name, config)
    scheduler.set_timesteps(steps)
    if float(scheduler.timesteps.max()) > trained - 1:
        raise ValueError(f"the first step would be {float(scheduler.timesteps.max()):g}, and the last trained one is "
                         f"{trained - 1} (steps_offset)")  # fmt: skip
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
