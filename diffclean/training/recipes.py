"""Recipes: settings of `train` and `distill` that belong together."""

from __future__ import annotations

from typing import Any

from diffclean.errors import UsageError
from diffclean.training.loop_config import LoopConfig
from diffclean.training.train_config import TrainConfig

STANDARD, FAST = "standard", "fast"
RECIPES: dict[str, dict[str, Any]] = {
    STANDARD: {
        "arch": TrainConfig.arch,
        "label_smoothing": TrainConfig.label_smoothing,
        "epochs": LoopConfig.epochs,
        "batch_size": LoopConfig.batch_size,
        "optimizer": LoopConfig.optimizer,
        "schedule": LoopConfig.schedule,
        "flip": LoopConfig.flip,
        "shift": LoopConfig.shift,
    },
    FAST: {
        "arch": "airnet",
        "label_smoothing": 0.2,
        "epochs": 8,
        "batch_size": 250,
        "optimizer": "muon",
        "schedule": "linear",
        "flip": "alternating",
        "shift": 1 / 16,
    },
}
"""The settings of each recipe. "fast" follows Jordan 2024 (arXiv 2404.00498), for images of 32 to 64 px."""


def filled(recipe: str, options: dict[str, Any]) -> dict[str, Any]:
    """The options with those of the recipe in place of None.

    Args:
        recipe: a name in `RECIPES`.
        options: arguments of `train` or `distill`. A student's architecture stays None with the standard recipe.

    Raises:
        UsageError: there is no such recipe.
    """
    if recipe not in RECIPES:
        raise UsageError(f"There is no recipe {recipe!r}.", f"Give `recipe` {' or '.join(RECIPES)}.")
    settings = dict(RECIPES[recipe])
    if "student" in options:
        arch = settings.pop("arch")
        settings["student"] = None if recipe == STANDARD else arch
    known = {name: value for name, value in settings.items() if name in options}
    return options | {name: value for name, value in known.items() if options[name] is None}
