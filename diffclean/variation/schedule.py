"""Turns a scheduler into a table of weights.

Write x_T for the first sample, D_1, ..., D_n for the outputs of the denoiser in n steps, and z_i for noise that a
stochastic scheduler adds after step i. The schedulers here are linear in all of them: the input of the denoiser at each
step, and the final sample, are weighted sums of x_T and of the D's and z's so far. The first sample itself is
w_0 x_0 + w_1 eps, the latent of the source and standard normal noise, with the weights of the forward process (for
example Ho et al., "DDPM", arXiv 2006.11239, eq. 4: x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) eps).

`unit_run` finds the weights: it runs diffusers' scheduler once on unit vectors. The denoising loop then needs no
scheduler: it has no history to reset and reads nothing back from a device, and every linear scheduler can be used
without further code. The noise of a stochastic scheduler is drawn from the image's seed like all other noise.

The update rules are those of DDIM (Song et al., arXiv 2010.02502, eq. 12 with sigma_t = 0), DPM-Solver++ (2M) (Lu et
al., arXiv 2211.01095, Algorithm 2), UniPC (Zhao et al., arXiv 2302.04867), Euler's method (Karras et al., "EDM", arXiv
2206.00364, Algorithm 1 without the second-order correction), its ancestral form, and, for models that were distilled
for few steps, LCM (Luo et al., arXiv 2310.04378) and TCD (Zheng et al., arXiv 2402.19159, with gamma = 0.3, which is
diffusers' default).
"""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from diffclean.errors import DiffcleanError, UsageError
from diffclean.families.schedulers import NEAREST, check_scheduler, parametrisation_of
from diffclean.variation import schedule_store
from diffclean.variation.unit_run import unit_run

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)

_DECIDE = ("num_train_timesteps", "beta_schedule", "prediction_type", "timestep_spacing", "steps_offset",
           "rescale_betas_zero_snr", "use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas",
           "original_inference_steps", "sigma_min", "sigma_max", "shift", "use_dynamic_shifting", "mu")  # fmt: skip
"""The keys of a configuration that a message names."""
_ANOTHER = "Use other `steps` or another `scheduler`, or correct the model's scheduler_config.json."

_KARRAS = {"use_karras_sigmas": True, "use_exponential_sigmas": False, "use_beta_sigmas": False}
SCHEDULERS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "ddim": ("DDIMScheduler", {}),
    "dpm++": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++", "solver_order": 2}),
    "unipc": ("UniPCMultistepScheduler", {}),
    "euler": ("EulerDiscreteScheduler", {}),
    "dpm++-karras": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++", "solver_order": 2, **_KARRAS}),
    "euler-karras": ("EulerDiscreteScheduler", _KARRAS),
    "euler-a": ("EulerAncestralDiscreteScheduler", {}),
    "lcm": ("LCMScheduler", {}),
    "tcd": ("TCDScheduler", {}),
    "edm": ("EDMEulerScheduler", {}),
    "edm-dpm++": ("EDMDPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++", "solver_order": 2}),
    "flow": ("FlowMatchEulerDiscreteScheduler", {}),
}
"""Maps the name on the command line to diffusers' class, and to its settings beside the model's own configuration."""
STOCHASTIC = frozenset({"euler-a", "lcm", "tcd"})
"""The schedulers that add noise between steps."""


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
        inputs: a row for each step: the weights, in the input of the denoiser, of everything that was seen so far, in
            order: the first sample, and for each step before the output of the denoiser and, if `draws` says so, noise.
        final: the same weights for the final sample.
        draws: for each step, whether noise is drawn after it; empty if it is for none.
    """

    timesteps: tuple[float, ...]
    noise_levels: tuple[float, ...]
    start: tuple[float, float]
    inputs: tuple[tuple[float, ...], ...]
    final: tuple[float, ...]
    draws: tuple[bool, ...] = ()


def schedule_of(name: str, config: Mapping[str, Any], steps: int, start: float = 1.0) -> Schedule:
    """Compute a schedule, or take it from the cache if it was computed before.

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
    _check_fit(name, config)
    place = schedule_store.file_of(name, config, steps, start)
    if (fields := schedule_store.kept(place)) is not None:
        return _from_json(fields)
    schedule = _checked(name, config, steps, start)
    schedule_store.keep(place, asdict(schedule))
    return schedule


def _from_json(fields: Mapping[str, Any]) -> Schedule:
    """A schedule from lists in place of tuples."""
    rows = tuple(tuple(row) for row in fields["inputs"])
    return Schedule(**{name: tuple(values) for name, values in fields.items()} | {"inputs": rows})


def _checked(name: str, config: Mapping[str, Any], steps: int, start: float) -> Schedule:
    """Compute a schedule; raises as `schedule_of` does."""
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


def usable_schedulers(config: Mapping[str, Any]) -> list[str]:
    """The names of the schedulers that solve the equation that a model was trained for."""
    kind = parametrisation_of(config.get("_class_name", "DDIMScheduler"))
    return [name for name, (class_name, _) in SCHEDULERS.items() if parametrisation_of(class_name) == kind]


def _check_fit(name: str, config: Mapping[str, Any]) -> None:
    if name not in SCHEDULERS:
        raise UsageError(f"There is no scheduler {name!r}.", f"Known: {', '.join(SCHEDULERS)}.")
    if name not in (usable := usable_schedulers(config)):
        raise UsageError(
            f"The scheduler {name} does not fit this model, which was trained for the {config['_class_name']}.",
            f"Take one of: {', '.join(usable)}.",
        )


def _worked_out(name: str, config: Mapping[str, Any], steps: int, start: float) -> Schedule:
    trained = int(config.get("num_train_timesteps", 1000))
    scheduler = scheduler_named(name, config)
    _set_timesteps(scheduler, config, steps, trained)
    if int(steps * start) < 1:
        raise UsageError(
            f"A share {start:g} of {steps} steps is less than one step: nothing would be regenerated.",
            f"Give more `steps` (at least {math.ceil(1 / start)}) or a greater `strength`.",
        )
    first = steps - min(steps, int(steps * start))
    timesteps = scheduler.timesteps[first:]
    weights = _start_weights(scheduler, timesteps[:1], first)
    inputs, final, draws = unit_run(scheduler, timesteps, name in STOCHASTIC)
    times = tuple(float(timestep) for timestep in timesteps)
    levels = {
        "betas": [(time + 1) / trained for time in times],
        "flow": [time / trained for time in times],
        "edm": [1 - (first + index) / steps for index in range(len(times))],
    }[parametrisation_of(type(scheduler).__name__)]
    return Schedule(times, tuple(levels), weights, tuple(inputs), final, tuple(draws) if any(draws) else ())


def _set_timesteps(scheduler: Any, config: Mapping[str, Any], steps: int, trained: int) -> None:
    kind = parametrisation_of(type(scheduler).__name__)
    if kind != "flow":
        scheduler.set_timesteps(steps)
        if kind == "betas" and (first := float(scheduler.timesteps.max())) > trained - 1:
            raise ValueError(
                f"the first step would be {first:g}, and the last trained one is {trained - 1} (steps_offset)"
            )
        return
    # These two are not diffusers' own keys: a family adds them, because its pipeline computes them for every run.
    down_to_one_step = [1 - index / steps for index in range(steps)] if config.get("sigmas") == "to 1/steps" else None
    scheduler.set_timesteps(steps, sigmas=down_to_one_step, mu=config.get("mu"))


def _start_weights(scheduler: Any, timestep: Tensor, first: int) -> tuple[float, float]:
    """The weights of the source's latent and of the noise in the first sample, at step number `first`."""
    import torch

    if hasattr(scheduler, "set_begin_index"):  # otherwise it looks for the timestep, which may be there twice
        scheduler.set_begin_index(first)
    if not first:
        return 0.0, float(getattr(scheduler, "init_noise_sigma", 1.0))
    latent, noise = torch.eye(2)[:, None, None, None]
    if hasattr(scheduler, "add_noise"):
        noised = scheduler.add_noise(latent, noise, timestep)
    else:
        noised = scheduler.scale_noise(latent, timestep, noise)
    return float(noised.flatten()[0]), float(noised.flatten()[1])


def weighted_sum(weights: Sequence[float], tensors: Sequence[Tensor]) -> Tensor:
    """Sum of `weights[i] * tensors[i]`, element by element, so that the bytes of an image depend on its row only."""
    total = tensors[0] * weights[0]
    for weight, tensor in zip(weights[1:], tensors[1:], strict=True):
        if weight:
            total.add_(tensor, alpha=weight)
    return total
