"""The noise schedule of a model as its folder describes it, and checks of the configuration of a scheduler.

The sampler works on one parametrisation: a fixed table of betas (or alphas), and a network that predicts the noise, the
clean sample or the velocity. A scheduler of diffusers that solves the same equation on such a table can be replaced by
another one. Flow matching, EDM's sigmas, consistency models and the like are other parametrisations. If a model with
one of these were sampled in the usual way, it would make images, but wrong ones.
"""

from __future__ import annotations

import importlib.util
import inspect
import logging
import math
from collections.abc import Mapping
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
    "EulerAncestralDiscreteScheduler": "euler",
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
}
"""Maps each scheduler that a model may come with to the scheduler of diffclean that is the same, or that solves the
same equation."""

MOST_TIMESTEPS = 10_000
_LARGEST = 1e9
"""The greatest number that is taken for one; NaN and infinities are not."""
_PREDICTIONS = ("epsilon", "sample", "v_prediction")
_SPACINGS = ("leading", "linspace", "trailing")
_BETAS = ("linear", "scaled_linear", "squaredcos_cap_v2")
_OTHER = "diffclean can sample only models with a table of betas that predict the noise, the sample or the velocity."


def read_scheduler(directory: Path, part: str = "scheduler", steps_offset: int | None = None) -> dict[str, Any]:
    """Read and check the configuration of a model's scheduler.

    `model_index.json` determines its class, as in diffusers.

    Args:
        directory: the model directory.
        part: the folder of the scheduler.
        steps_offset: the value that diffusers' pipeline of this family sets in place of that in the configuration; None
            if it sets none.

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
    check_scheduler(config, str(path))
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


def check_scheduler(config: Mapping[str, Any], where: str) -> None:
    """Refuse a configuration that the sampler cannot use, before any part of the model is built.

    Args:
        config: the configuration as diffusers stores it.
        where: its file, for the message.

    Raises:
        DiffcleanError: names the key, what was expected, and what was found.
    """
    name = config.get("_class_name")
    if not isinstance(name, str) or name not in NEAREST:
        raise DiffcleanError(
            f"{where} names the scheduler {name!s:.80}, which diffclean cannot use.",
            f"{_OTHER} Known: {', '.join(NEAREST)}.",
        )
    trained = config.get("num_train_timesteps", 1000)
    _be(_is_whole(trained, 1, MOST_TIMESTEPS), where, "num_train_timesteps", f"1 to {MOST_TIMESTEPS}", trained)
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
    order = config.get("solver_order", 2)
    _be(_is_whole(order, 1, 3), where, "solver_order", "1, 2 or 3", order)
    for key in ("use_flow_sigmas", "use_dynamic_shifting"):
        _be(not config.get(key), where, key, "false: flow matching is another parametrisation", config.get(key))
    if config.get("rescale_betas_zero_snr") and prediction == "epsilon":
        raise DiffcleanError(
            f"{where} has rescale_betas_zero_snr with prediction_type epsilon: the first step then starts from noise "
            "alone, from which a predicted noise does not determine the sample.",
            "Models with this setting predict the velocity: prediction_type v_prediction.",
        )
    if config.get("use_beta_sigmas") and importlib.util.find_spec("scipy") is None:
        raise DiffcleanError(f"{where} has use_beta_sigmas, for which diffusers needs scipy.", "pip install scipy")


def _is_whole(value: Any, lowest: int, highest: int) -> bool:
    return type(value) is int and lowest <= value <= highest


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and -_LARGEST < value < _LARGEST  # whole numbers may exceed any float


def _be(holds: bool, where: str, key: str, expected: str, found: Any) -> None:
    if not holds:
        raise DiffcleanError(f"{where} has {key} {found!r:.80}; expected: {expected}.", _OTHER)
