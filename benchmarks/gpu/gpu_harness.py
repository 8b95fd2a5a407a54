"""Holds what the GPU benchmarks share: stored pieces of results, a time limit, and one result file per benchmark.

Machine time is available for a few minutes at a time. A benchmark is therefore a table of pieces, each of which fits
into that time. `measured` makes the missing pieces, writes the result after each of them, and ends in time. Repeating
the same command continues the work.

A script beside this one imports it before it imports anything of the folder above (`record`, `robustness_data`, ...).
"""

from __future__ import annotations

import argparse
import gc
import logging
import sys
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from threading import Event, Timer
from typing import Any

import torch

sys.path.append(str(Path(__file__).parents[1]))

from record import Pieces, write_result

from diffclean.errors import Interrupted

log = logging.getLogger("gpu")

AGAIN = 3
"""Exit code of a command that has not done all: it goes on when it is given again."""
Plan = Mapping[str, Callable[[], Any]]
"""Name of a piece -> what makes it."""


def add_arguments(parser: argparse.ArgumentParser, name: str) -> None:
    """`--work`, `--limit` and `--name`."""
    parser.add_argument("--work", type=Path, required=True, help="the folder for finished pieces")
    parser.add_argument("--limit", type=float, help="the minutes after which no further piece is begun")
    parser.add_argument("--name", default=name, help="the name of the result file")


class Limit:
    """An amount of time, from now.

    Args:
        minutes: how long; None: for ever.
    """

    def __init__(self, minutes: float | None) -> None:
        self.stop = Event()
        """Set when the time is over, for work that can be interrupted and goes on another time."""
        self._ends = None if minutes is None else time.monotonic() + 60 * minutes
        if minutes is not None:
            timer = Timer(60 * minutes, self.stop.set)
            timer.daemon = True
            timer.start()

    @property
    def is_over(self) -> bool:
        """Whether nothing more should be begun."""
        return self._ends is not None and time.monotonic() >= self._ends


def measured(
    options: argparse.Namespace,
    settings: dict[str, Any],
    plan: Plan,
    figures_of: Callable[[dict[str, Any]], dict[str, Any]],
    data: str,
    basis: Collection[str] = (),
    limit: Limit | None = None,
) -> int:
    """Make the pieces that are missing, and the result file after each.

    A piece that fails is named in the result (`failed`) and tried again another time; the others are made all the same.

    Args:
        options: `work`, `limit` and `name`, as `add_arguments` has them.
        settings: what decides the figures; pieces that were made with other settings are thrown away.
        plan: the pieces, in order.
        figures_of: the figures of the result, from the pieces that there are.
        data: which images, in words.
        basis: pieces without which the others mean nothing: if one fails, all ends.
        limit: `options.limit`, where a piece has to know of it: one that raises `Interrupted` goes on another time.

    Returns:
        The exit code: 0, or `AGAIN` where the time did not suffice.
    """
    limit = limit or Limit(options.limit)
    pieces = Pieces(options.work / f"{options.name}.pieces.json", settings)
    failed: dict[str, str] = {}
    for name, make in plan.items():
        if name not in pieces.made and limit.is_over:
            return _again("The time is over.")
        try:
            pieces.get(name, make)
        except Interrupted as error:
            return _again(f"{name}: {error.message}")
        except Exception as error:  # the others are still worth measuring
            if name in basis:
                raise
            log.exception("%s failed", name)
            failed[name] = f"{type(error).__name__}: {error}"
        released()
        write_result(options.name, {**settings, **figures_of(pieces.made), "failed": failed}, data)
    print("All is done.", flush=True)
    return 0


def _again(why: str) -> int:
    print(f"{why} Not all is done: give the same command again.", flush=True)
    return AGAIN


def released() -> None:
    """Let go of the networks of a piece, and of what was compiled for them: a GPU's memory is wanted for the next."""
    if torch.cuda.is_available():
        torch.compiler.reset()
        gc.collect()
        torch.cuda.empty_cache()
