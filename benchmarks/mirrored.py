"""Whether `clean` mirrors the images of data sets with and without poison, and which classes speak against it.

    python benchmarks/mirrored.py --work WORK --data cifar10=TRAIN:TEST tiny40=FOLDER signs --attacks benign badnets

Photographs should be mirrored whatever the poison, and traffic signs should not. WORK may be that of `detection.py`,
whose data sets and poison are the same.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from detection_cell import ATTACKS, BENIGN, Cell
from detection_data import data_set
from detection_training import ATTACKERS, poisoned_set
from record import write_result

from diffclean.datasets.variations import classes_of
from diffclean.detection.find import DEFAULT_DETECTOR
from diffclean.training.mirrored import look_in_mirror

_RATE = 0.1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="the folder of data sets and poison")
    parser.add_argument("--data", nargs="+", required=True, help="NAME=TRAIN:TEST, tiny40=FOLDER, signs")
    parser.add_argument("--attacks", nargs="+", choices=[BENIGN, *ATTACKS], default=[BENIGN])
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    sets = [data_set(spec, options.work, None) for spec in options.data]
    rates = [(attack, None if attack == BENIGN else _RATE) for attack in options.attacks]
    cells = [Cell(data, attack, rate, options.seed, DEFAULT_DETECTOR) for data in sets for attack, rate in rates]
    figures = {"seed": options.seed, "cells": [measured(cell) for cell in cells]}
    write_result("mirrored", figures, ", ".join(data.name for data in sets))


def measured(cell: Cell) -> dict[str, Any]:
    """What the look says about the data of a cell."""
    data = poisoned_set(cell, ATTACKERS)
    began = time.process_time()
    found = look_in_mirror(data, classes_of(data), cell.seed)
    told: dict[str, Any] = {"data": cell.data.name, "attack": cell.attack, "rate": cell.real_rate}
    told |= {"classes": {name: asdict(seen) for name, seen in found.classes.items()}, "turned": found.turned}
    told |= {"mirrors": found.harmless, "cpu_s": round(time.process_time() - began, 1)}
    print({name: told[name] for name in ("data", "attack", "turned", "cpu_s")}, flush=True)
    return told


if __name__ == "__main__":
    main()
