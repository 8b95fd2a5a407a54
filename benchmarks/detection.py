"""How well poisoned images are found: a grid of data set x attack x poison rate x seed, for one detector or several.

python benchmarks/detection.py --work WORK --data cifar10=TRAIN:TEST scenes128=TRAIN:TEST tiny40=FOLDER signs \
    --half chosen --rates 0.1 0.05 0.01 0.005 --seeds 1 2 3 --teachers

The hash of its names puts each pair of data set and attack into one of two halves. Every setting was chosen on the half
`chosen`; the half `reported` is measured at the end. `--list` shows who is where. Benign runs belong to `chosen` with
seeds up to 10, and to `reported` with larger ones: `--half reported --seeds 11 12 13`.

Every cell leaves a JSON file in WORK/cells, so a run that was stopped goes on; a cell is measured anew when the source
of its detector has changed. The whole is written to results/<name>.json; `render.py` makes the table. Several runs may
share WORK where they have different data sets; a last one over all of them then makes the result. `--as-kept` makes it
from what is there; the tables then say on how many states of the code the cells were measured.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterator
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from detection_cell import ATTACKS, BENIGN, Cell, half_of
from detection_data import data_set
from detection_measure import as_kept, code, measured
from detection_training import Training
from record import write_result

log = logging.getLogger("detection")

HALVES = ("chosen", "reported")
DATA = ("cifar10", "scenes128", "tiny40", "signs")


def main() -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    options = arguments()
    if options.list:
        show_halves([spec.partition("=")[0] for spec in options.data])
        return 0
    attacks = available(options.attacks)
    training = training_of(options)
    codes = {detector: code(detector) for detector in options.detectors}
    figures: dict[str, Any] = {"training": asdict(training), "code": codes, "data": {}, "cells": [], "failed": []}
    for cell in cells(options, attacks):
        log.info("cell: %s (%s)", cell.name, cell.half)
        try:
            if options.as_kept:
                found = as_kept(cell, training, options.work)
            else:
                found = measured(cell, training, options.work, options.teachers, options.students)
        except Exception as error:  # one cell must not cost the others of a long run; it is told here and at the end
            log.exception("%s failed", cell.name)
            figures["failed"].append({"cell": cell.name, "why": f"{type(error).__name__}: {error}"})
        else:
            if found is None:
                continue
            figures["cells"].append(found)
            sizes = cell.data.sizes.values()
            spread = {"images": sum(sizes), "smallest_class": min(sizes), "largest_class": max(sizes)}
            figures["data"][cell.data.name] = {"classes": len(sizes), **spread}
        write_result(options.name, figures, ", ".join(spec.partition("=")[0] for spec in options.data))
    return int(bool(figures["failed"]))


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", default="detection", help="the name of the result file")
    parser.add_argument("--data", nargs="+", default=DATA, help="NAME=TRAIN:TEST, tiny40=FOLDER, signs")
    parser.add_argument("--work", type=Path, help="the folder in which everything is kept")
    parser.add_argument("--list", action="store_true", help="show to which half each pair belongs, and exit")
    parser.add_argument("--half", choices=[*HALVES, "both"], default="chosen")
    unasked = [BENIGN, *(name for name, setting in ATTACKS.items() if not setting.needs_model)]
    parser.add_argument("--attacks", nargs="+", choices=[BENIGN, *ATTACKS], default=unasked)
    parser.add_argument("--rates", nargs="+", type=float, default=[0.1, 0.05, 0.01, 0.005])
    parser.add_argument("--seeds", nargs="+", type=int, default=[1])
    parser.add_argument("--detectors", nargs="+", default=["isolate"])
    parser.add_argument(
        "--as-kept",
        action="store_true",
        help="measure nothing: take the cells that are there, of any state of the code",
    )
    parser.add_argument("--teachers", action="store_true", help="measure teachers as well")
    parser.add_argument("--students", action="store_true", help="measure teachers and a student as well")
    parser.add_argument("--arch", default="wrn-16-1")
    parser.add_argument("--large-arch", default="resnet8-cifar", help="for images of more than 64 px")
    parser.add_argument("--side", type=int, default=64, help="classifiers see larger images at this side, in pixels")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--student-epochs", type=int, help="the default is the value of --epochs")
    parser.add_argument("--engine", default="micro", help="the engine that makes variations")
    options = parser.parse_args()
    if not options.list and options.work is None:
        parser.error("--work is needed")
    return options


def training_of(options: argparse.Namespace) -> Training:
    """What the command line says of classifiers."""
    epochs = options.student_epochs or options.epochs
    return Training(options.arch, options.large_arch, options.side, options.epochs, epochs, options.engine)


def available(names: list[str]) -> list[str]:
    """The attacks of these that can be made; says which cannot."""
    found = []
    for name in names:
        missing = "" if name == BENIGN else ATTACKS[name].missing()
        if missing:
            log.warning("left out: %s. %s", name, missing)
        else:
            found.append(name)
    return found


def show_halves(data: list[str]) -> None:
    """Print to which half each pair belongs."""
    for name in data:
        for attack in (BENIGN, *ATTACKS):
            print(f"{name:16}{attack:22}{half_of(name, attack)}")


def cells(options: argparse.Namespace, attacks: list[str]) -> Iterator[Cell]:
    """Every cell once, in an order that sees every pair at the first rate and with the first seed first.

    Where clean labels cap two rates to the same, the first of them stands for both.
    """
    made = cache(lambda spec: data_set(spec, options.work))
    seen = set()
    for seed in options.seeds:
        for rate in options.rates:
            for attack in attacks:
                for spec in options.data:
                    if options.half not in ("both", half_of(spec.partition("=")[0], attack, seed)):
                        continue
                    for detector in options.detectors:
                        cell = Cell(made(spec), attack, None if attack == BENIGN else rate, seed, detector)
                        if cell.name not in seen:
                            seen.add(cell.name)
                            yield cell


if __name__ == "__main__":
    sys.exit(main())
