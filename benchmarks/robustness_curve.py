"""Measure clean accuracy and attack success over strength, steps, variations and temperature, to set the defaults.

    python benchmarks/robustness_curve.py --train CIFAR_TRAIN --test CIFAR_TEST --work WORK --seeds 1 2 3

One factor at a time is changed, and the others stay at their defaults (the engine's own, one variation, temperature
10). The functions of `robustness.py` do the work: with the same WORK, count, architecture, epochs and alpha, teachers
and poisoned sets are reused, and so are cells that both benchmarks need. A stopped run can continue.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from record import write_result
from robustness import Grid, add_grid_arguments, cell, grid_of

from diffclean.variation.settings import recipe_of

FACTORS = ("strength", "steps", "variations", "temperature")


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    options = arguments()
    grid = grid_of(options)
    defaults = defaults_of(grid)
    figures: dict[str, Any] = {"grid": grid.shared(), "defaults": defaults, "undefended": [], "points": []}

    def cells(of: Grid, defence: str, into: list[dict[str, Any]]) -> None:
        for attack in options.attacks:
            for seed in options.seeds:
                into.append(cell(of, attack, options.rate.get(attack), seed, defence))
                write_result(options.name, figures, options.data)

    cells(grid, "none", figures["undefended"])
    for factor, value, changed in points(grid, defaults, options):
        figures["points"].append({"factor": factor, "value": value, "cells": []})
        cells(changed, "ours", figures["points"][-1]["cells"])


def arguments() -> argparse.Namespace:
    """The command line; an empty list of values leaves a factor out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", default="robustness_curve")
    parser.add_argument("--strengths", nargs="*", type=float, default=[0.1, 0.2, 0.3, 0.5, 0.8], dest="strength_values")
    parser.add_argument("--steps", nargs="*", type=int, default=[1, 2, 4, 8], dest="steps_values")
    parser.add_argument("--variations", nargs="*", type=int, default=[1, 2, 4], dest="variations_values")
    parser.add_argument("--temperatures", nargs="*", type=float, default=[1, 4, 10, 20], dest="temperature_values")
    add_grid_arguments(parser, ["badnets", "blended", "ftrojan"])
    parser.set_defaults(steps=None, strength=None, variations=1, temperature=10.0)
    options = parser.parse_args()
    options.rate = dict(options.rate)
    return options


def defaults_of(grid: Grid) -> dict[str, float]:
    """The value that each factor has where another one is changed."""
    settings = grid.settings.resolved(recipe_of(grid.settings).defaults)
    return {"temperature": grid.temperature} | {
        name: getattr(settings, name) for name in FACTORS if name in vars(settings)
    }


def points(grid: Grid, defaults: dict[str, float], options: argparse.Namespace) -> Iterator[tuple[str, float, Grid]]:
    """(factor, value, grid) of each point. At the default the grid stays as it is: its cells are made once."""
    for factor in FACTORS:
        for value in getattr(options, f"{factor}_values"):
            if value == defaults[factor]:
                yield factor, value, grid
            elif factor == "temperature":
                yield factor, value, replace(grid, temperature=value)
            else:
                yield factor, value, replace(grid, settings=replace(grid.settings, **{factor: value}))


if __name__ == "__main__":
    main()
