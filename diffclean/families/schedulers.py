"""The noise schedule of a model as its folder describes it, and checks of the configuration of a scheduler.

A network is trained in one of three parametrisations, and a scheduler of diffusers solves the equation of one of them:

- `betas`: a fixed table of betas (Ho et al., "DDPM", arXiv 2006.11239); the network predicts the noise, the clean
  sample or the velocity.
- `edm`: noise levels sigma without a table, and inputs and outputs that are scaled by them (Karras et al., "EDM", arXiv
  2206.00364, table 1).
- `flow`: the straight line between the sample and the noise, x_s = (1 - s) x_0 + s eps; the network predicts its
  direction (Lipman et al., "Flow Matching", arXiv 2210.02747; Liu et al., "Rectified Flow", arXiv 2209.03003).

Within a parametrisation a scheduler can be replaced by another one. If a model of one parametrisation were sampled as
one of another, it would make images, but wrong ones.
"""

from __future__ import annotations

import importlib.util
import inspect
import logging
import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from diffclean.data.json_file import read_json
from diffclean.errors import DiffcleanError

log = logging.getLogger(__name__)

NEAREST = {
    "DDIMScheduler": "ddim",
    "DDIMParallelScheduler": "ddim",
    "DDPMScheduler": "ddim",
    "DDPMParallelScheduler": "ddim",
    "PNDMScheduler": "ddim",
    "EulerDiscreteScheduler": "euler",
    "EulerAncestralDiscreteScheduler": "euler-a",
    "HeunDiscreteScheduler": "euler",
    "LMSDiscreteScheduler": "euler",
    "DPMSolverMultistepScheduler": "dpm++",
    "DPMSolverSinglestepScheduler": "dpm++",
    "DPMSolverSDEScheduler": "dpm++",
    "DEISMultistepScheduler": "dpm++",
    "KDPM2DiscreteScheduler": "dpm++",
    "KDPM2AncestralDiscreteScheduler": "dpm++",
    "SASolverScheduler": "dpm++",
    "UniPCMultistepScheduler": "unipc",
    "LCMScheduler": "lcm",
    "TCDScheduler": "tcd",
    "EDMEulerScheduler": "edm",
    "EDMDPMSolverMultistepScheduler": "edm-dpm++",
    "FlowMatchEulerDiscreteScheduler": "flow",
    "FlowMatchHeunDiscreteScheduler": "flow",
}
"""Maps each scheduler that a model may come with to the scheduler of diffclean that is the same, or that solves the
same equation."""

MOST_TIMESTEPS = 10_000
_LARGEST = 1e9
"""The greatest number that is taken for one; NaN and infinities are not."""
_PREDICTIONS = ("epsilon", "sample", "v_prediction")
_SPACINGS = ("leading", "linspace", "trailing")
_BETAS = ("linear", "scaled_linear", "squaredcos_cap_v2")
_OTHER = "diffclean does not sample models of another kind, because their pictures would be wrong."
LATENT = ("betas", "edm")
"""The parametrisations that diffusers' pipelines of U-Nets can sample."""


def parametrisation_of(class_name: str) -> str:
    """The parametrisation of a class in `NEAREST`: `betas`, `edm` or `flow`."""
    return {"flow": "flow", "edm": "edm", "edm-dpm++": "edm"}.get(NEAREST[class_name], "betas")


def read_scheduler(
    directory: Path,
    part: str = "scheduler",
    steps_offset: int | None = None,
    parametrisations: Collection[str] = LATENT,
) -> dict[str, Any]:
    """Read and check the configuration of a model's scheduler.

    `model_index.json` determines its class, as in diffusers.

    Args:
        directory: the model directory.
        part: the folder of the scheduler.
        steps_offset: the value that diffusers' pipeline of this family sets in place of that in the configuration; None
            if it sets none.
        parametrisations: those in which the family's network can be trained.

    Raises:
        DiffcleanError: the file is missing or damaged, or describes a scheduler that cannot be used; the message names
            the key.
    """
    path = directory / part / "scheduler_config.json"
    if not path.is_file():
        raise DiffcleanError(
            f"{directory} is not a whole model: {part}/scheduler_config.json is missing.",
            "A model directory is what diffusers' `save_pretrained` writes, or a copy of all files of the hub's page.",
        )
    config = read_json(path, infinities=True)
    if not isinstance(config, dict):
        raise DiffcleanError(f"{path} is damaged: it holds a {type(config).__name__}.")
    config = {**config, "_class_name": _class_of(directory, part, config)}
    if config.get("lambda_min_clipped") == -math.inf:
        del config["lambda_min_clipped"]  # the default of diffusers, which JSON cannot express
    check_scheduler(config, str(path), parametrisations)
    if steps_offset is not None and _knows_offset(config) and config.get("steps_offset", 0) != steps_offset:
        log.info("The model's steps_offset is set to %d, as diffusers' pipeline does.", steps_offset)
        config["steps_offset"] = steps_offset
    return config


def _class_of(directory: Path, part: str, config: Mapping[str, Any]) -> Any:
    index = directory / "model_index.json"
    listed = read_json(index).get(part) if index.is_file() else None
    own = config.get("_class_name")
    if not (isinstance(listed, list) and len(listed) == 2 and isinstance(listed[1], str)):
        return own
    if listed[0] != "diffusers":
        raise DiffcleanError(f"{index} names a scheduler that is not diffusers' own: {listed[0]}.{listed[1]}.", _OTHER)
    if own not in (None, listed[1]):
        log.info("%s names the scheduler %s and its own file names %s; the former is used.", index, listed[1], own)
    return listed[1]


def _knows_offset(config: Mapping[str, Any]) -> bool:
    import diffusers

    return "steps_offset" in inspect.signature(getattr(diffusers, config["_class_name"]).__init__).parameters


def check_scheduler(
    config: Mapping[str, Any], where: str, parametrisations: Collection[str] = (*LATENT, "flow")
) -> None:
    """Refuse a configuration that the sampler cannot use, before any part of the model is built.

    Args:
        config: the configuration as diffusers stores it.
        where: its file, for the message.
        parametrisations: those that are taken.

    Raises:
        DiffcleanError: names the key, what was expected, and what was found.
    """
    name = config.get("_class_name")
    taken = [known for known in NEAREST if parametrisation_of(known) in parametrisations]
    if not isinstance(name, str) or name not in taken:
        raise DiffcleanError(
            f"{where} names the scheduler {name!s:.80}, which diffclean cannot use with a model of this family.",
            f"{_OTHER} Taken are: {', '.join(taken)}.",
        )
    trained = config.get("num_train_timesteps", 1000)
    _be(_is_whole(trained, 1, MOST_TIMESTEPS), where, "num_train_timesteps", f"1 to {MOST_TIMESTEPS}", trained)
    order = config.get("solver_order", 2)
    _be(_is_whole(order, 1, 3), where, "solver_order", "1, 2 or 3", order)
    {"betas": _check_betas, "edm": _check_edm, "flow": _check_flow}[parametrisation_of(name)](config, where, trained)
    if config.get("use_beta_sigmas") and importlib.util.find_spec("scipy") is None:
        raise DiffcleanError(f"{where} has use_beta_sigmas, for which diffusers needs scipy.", "pip install scipy")


def _check_betas(config: Mapping[str, Any], where: str, trained: int) -> None:
    for key in ("beta_start", "beta_end"):
        value = config.get(key, 0.01)
        _be(_is_number(value) and 0 < value < 1, where, key, "a number between 0 and 1", value)
    betas = config.get("trained_betas")
    if betas is not None:
        good = isinstance(betas, list) and len(betas) == trained and all(_is_number(b) and 0 < b <= 1 for b in betas)
        _be(good, where, "trained_betas", f"{trained} numbers between 0 and 1", betas)
    prediction = config.get("prediction_type", "epsilon")
    _be(prediction in _PREDICTIONS, where, "prediction_type", ", ".join(_PREDICTIONS), prediction)
    spacing = config.get("timestep_spacing", "leading")
    _be(spacing in _SPACINGS, where, "timestep_spacing", ", ".join(_SPACINGS), spacing)
    curve = config.get("beta_schedule", "linear")
    _be(curve in _BETAS or betas is not None, where, "beta_schedule", ", ".join(_BETAS), curve)
    offset = config.get("steps_offset", 0)
    _be(_is_whole(offset, 0, trained), where, "steps_offset", f"0 to {trained}", offset)
    original = config.get("original_inference_steps", 1)
    _be(_is_whole(original, 1, trained), where, "original_inference_steps", f"1 to {trained}", original)
    _be_positive(config, where, "timestep_scaling")
    for key in ("use_flow_sigmas", "use_dynamic_shifting"):
        _be(not config.get(key), where, key, "false: flow matching is another parametrisation", config.get(key))
    if config.get("rescale_betas_zero_snr") and prediction == "epsilon":
        raise DiffcleanError(
            f"{where} has rescale_betas_zero_snr with prediction_type epsilon: the first step then starts from noise "
            "alone, from which a predicted noise does not determine the sample.",
            "Models with this setting predict the velocity: prediction_type v_prediction.",
        )


def _check_edm(config: Mapping[str, Any], where: str, trained: int) -> None:
    for key in ("sigma_min", "sigma_max", "sigma_data", "rho"):
        _be_positive(config, where, key)
    lowest, highest = config.get("sigma_min", 0.002), config.get("sigma_max", 80.0)
    _be(lowest < highest, where, "sigma_min", f"less than sigma_max, which is {highest}", lowest)
    for key, expected in (
        ("prediction_type", ("epsilon", "v_prediction")),
        ("sigma_schedule", ("karras", "exponential")),
        ("final_sigmas_type", ("zero", "sigma_min")),
    ):
        value = config.get(key, expected[0])
        _be(value in expected, where, key, " or ".join(expected), value)


def _check_flow(config: Mapping[str, Any], where: str, trained: int) -> None:
    for key in ("shift", "base_image_seq_len", "max_image_seq_len"):
        _be_positive(config, where, key)
    for key in ("base_shift", "max_shift", "mu"):
        value = config.get(key, 1.0)
        _be(_is_number(value), where, key, "a number", value)
    for key in ("invert_sigmas", "stochastic_sampling"):
        _be(not config.get(key), where, key, "false", config.get(key))
    terminal = config.get("shift_terminal")
    good = terminal is None or (_is_number(terminal) and 0 <= terminal < 1)
    _be(good, where, "shift_terminal", "nothing, or a number from 0 to below 1", terminal)
    kind = config.get("time_shift_type", "linear")
    _be(kind in ("exponential", "linear"), where, "time_shift_type", "exponential or linear", kind)


def _be_positive(config: Mapping[str, Any], where: str, key: str) -> None:
    value = config.get(key, 1)
    _be(_is_number(value) and value > 0, where, key, "a number above 0", value)


def _is_whole(value: Any, lowest: int, highest: int) -> bool:
    return type(value) is int and lowest <= value <= highest


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and -_LARGEST < value < _LARGEST  # whole numbers may exceed any float


def _be(holds: bool, where: str, key: str, expected: str, found: Any) -> None:
    if not holds:
        raise DiffcleanError(f"{where} has {key} {found!r:.80}; expected: {expected}.", _OTHER)
