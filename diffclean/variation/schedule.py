"""Turns a scheduler into a table of weights.

Write x_T for the first sample and D_1, ..., D_n for the outputs of the denoiser in n steps. The schedulers here are
linear in them: the input of the denoiser at step i is a_i0 x_T + a_i1 D_1 + ... + a_i,i-1 D_(i-1), and the final sample
is b_0 x_T + b_1 D_1 + ... + b_n D_n. The first sample itself is w_0 x_0 + w_1 eps, the latent of the source and
standard normal noise, with the weights of the forward process (Ho et al., "DDPM", arXiv 2006.11239, eq. 4: x_t =
sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) eps).

To find the weights, diffusers' scheduler is run once on unit vectors in place of x_T and the D's. The denoising loop
then needs no scheduler: it has no history to reset and reads nothing back from a device, and every linear scheduler can
be used without further code.

The update rules are those of DDIM (Song et al., arXiv 2010.02502, eq. 12 with sigma_t = 0), DPM-Solver++ (2M) (Lu et
al., arXiv 2211.01095, Algorithm 2), UniPC (Zhao et al., arXiv 2302.04867) and Euler's method (Karras et al., "EDM",
arXiv 2206.00364, Algorithm 1 without the second-order correction).
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
_ANOTHER = "Use other `steps` or another `scheduler`, or correct the model's scheduler_config.json."

SCHEDULERS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "ddim": ("DDIMScheduler", {}),
    "dpm++": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++", "solver_order": 2}),
    "unipc": ("UniPCMultistepScheduler", {}),
    "euler": ("EulerDiscreteScheduler", {}),
}
"""Maps the name on the command line to diffusers' class, and to its settings beside the model's own configuration."""


def scheduler_for(config: Mapping[str, Any]) -> str:
    """The name of the scheduler that is nearest to a model's own.

    The log names what is not followed of the model's own.

    Raises:
        DiffcleanError: the model's own scheduler solves another equation.
    """
    check_scheduler(config, "The model")
    name = NEAREST[config["_class_name"]]
    for difference in differences(name, config):
        log.info("Note: %s (`scheduler` chooses another).", difference)
    return name


def differences(name: str, config: Mapping[str, Any]) -> list[str]:
    """What one of our schedulers does not follow of the model's own scheduler, as a list of phrases."""
    found = str(config.get("_class_name", ""))
    class_name, ours = SCHEDULERS[name]
    if found and found != class_name:
        return [f"{name} is used in place of the model's own scheduler, {found}"]
    defaults = {"algorithm_type": "dpmsolver++", "solver_order": 2}
    return [
        f"the model's {key} {config.get(key)} is replaced by {value}"
        for key, value in ours.items()
        if config.get(key, defaults.get(key)) != value
    ]


def scheduler_named(name: str, config: Mapping[str, Any]) -> Any:
    """A diffusers scheduler on the model's noise schedule, without clipping or thresholding, which are not linear.

    Raises:
        UsageError: there is no scheduler of that name.
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
    """The default noise schedule of the model's own class, for what its configuration does not say."""
    import diffusers

    own = getattr(diffusers, str(config.get("_class_name")), None)
    parameters = inspect.signature(own.__init__).parameters if own is not None else {}
    names = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule")
    return {name: parameters[name].default for name in names if name in parameters}


@dataclass(frozen=True)
class Schedule:
    """A run of the denoiser as a table of numbers.

    Attributes:
        timesteps: the timestep that the denoiser is given at each step, noisiest first.
        noise_levels: the same as a share of the schedule: 1 is pure noise, 0 is the image.
        start: (w_0, w_1), the weights of the source's latent and of the noise in the first sample.
        inputs: a row (a_i0, ..., a_i,i-1) for each step i: the weights of the first sample and of the outputs so far in
            the input of the denoiser.
        final: (b_0, ..., b_n), the same weights for the final sample.
    """

    timesteps: tuple[float, ...]
    noise_levels: tuple[float, ...]
    start: tuple[float, float]
    inputs: tuple[tuple[float, ...], ...]
    final: tuple[float, ...]


def schedule_of(name: str, config: Mapping[str, Any], steps: int, start: float = 1.0) -> Schedule:
    """Compute a schedule.

    Args:
        name: one of `SCHEDULERS`.
        config: the noise schedule of the model, as diffusers stores it.
        steps: the number of denoising steps of a run from pure noise.
        start: the share of the schedule that is run, as in diffusers' image-to-image pipelines.

    Raises:
        UsageError: there is no scheduler of that name, or the share is less than one step.
        DiffcleanError: diffusers cannot compute the schedule, or it has numbers that are not finite; the message names
            the settings.
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
        AssertionError,
        AttributeError,
        ImportError,
        LookupError,
        NotImplementedError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DiffcleanError(f"{name} cannot take {steps} steps with {asked}: {reason}", _ANOTHER) from error
    numbers = [*schedule.timesteps, *schedule.start, *schedule.final, *(w for row in schedule.inputs for w in row)]
    if not all(map(math.isfinite, numbers)):
        raise DiffcleanError(f"{name} with {steps} steps and {asked} leads to weights that are not finite.", _ANOTHER)
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
            f"A share {start:g} of {steps} steps is less than one step: nothing would be regenerated.",
            f"Give more `steps` (at least {math.ceil(1 / start)}) or a greater `strength`.",
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
    # There are four axes because schedulers expect a batch of images; the last axis holds the weights.
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
    """Sum of `weights[i] * tensors[i]`, element by element, so that the bytes of an image depend on its row only."""
    total = tensors[0] * weights[0]
    for weight, tensor in zip(weights[1:], tensors[1:], strict=True):
        if weight:
            total.add_(tensor, alpha=weight)
    return total
