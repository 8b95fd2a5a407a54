"""What `diffclean clean` makes of poisoned data: a grid of data set x attack x poison rate x seed, at its defaults.

    python benchmarks/clean_grid.py --work WORK --data cifar10=TRAIN:TEST --count 5000 --attacks benign badnets sig

Each cell is the command as people type it, in a process of its own, with a clean test set and the manifest of the
poison. Its figures are those of its report.json. Beside them stands a classifier that learned from the clean data in
the same way: how many triggered images it takes for the target class is the least that can be asked for.

The result file is the memory of the grid: a cell that is in it is not measured again (`--again` does so), so the grid
grows from session to session and from machine to machine, and each cell tells its own commit, date and machine. A cell
that was stopped goes on where WORK is the same.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from detection_cell import ATTACKS, BENIGN, Cell
from detection_data import data_set
from detection_training import ATTACKERS, poisoned_set
from record import commit, machine, results_folder, write_result

from diffclean.attacks.base import Labels
from diffclean.attacks.manifest import MANIFEST_FILE
from diffclean.detection.find import DEFAULT_DETECTOR
from diffclean.evaluation.evaluate import evaluate
from diffclean.report.facts import REPORT_FILE
from diffclean.training.loop_config import LoopConfig
from diffclean.workflow.steps import Hands, Teaching, train_teacher

log = logging.getLogger("clean_grid")

_RATES = {Labels.CLEAN: 0.05}
"""The poison rates of the field; where labels are dirty it is a tenth."""
_IDENTITY = ("data", "images", "attack", "rate", "seed", "options")
"""What tells one cell from another."""
_LOOP = ("epochs", "batch_size", "optimizer", "schedule", "flip", "shift", "augment", "seed")
"""The settings of a training that `clean` decides."""


def main() -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    options = arguments()
    path = results_folder() / f"{options.name}.json"
    kept = json.loads(path.read_text())["figures"]["cells"] if path.exists() else []
    failed: list[dict[str, str]] = []
    for cell in cells(options):
        asked = {**about(cell), "options": options.options}
        others = [each for each in kept if any(each[key] != asked[key] for key in _IDENTITY)]
        if len(others) < len(kept) and not options.again:
            continue
        log.info("cell: %s", asked)
        try:
            found = measured(cell, options.options)
        except Exception as error:  # one cell must not cost the others of a long run; it is told here and at the end
            log.exception("%s failed", cell.name)
            failed.append({"cell": cell.name, "why": f"{type(error).__name__}: {error}"})
        else:
            kept = [*others, asked | found]
        write(options.name, kept, failed)
    write(options.name, kept, failed)
    return int(bool(failed))


def write(name: str, kept: list[dict[str, Any]], failed: list[dict[str, str]]) -> None:
    """Write the result file."""
    write_result(name, {"cells": kept, "failed": failed}, ", ".join(dict.fromkeys(each["data"] for each in kept)))


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", default="clean_grid", help="the name of the result file")
    parser.add_argument("--data", nargs="+", required=True, help="NAME=TRAIN:TEST, tiny40=FOLDER, signs")
    parser.add_argument("--work", type=Path, required=True, help="the folder in which everything is kept")
    parser.add_argument("--count", type=int, help="how many training images are used, evenly over the classes")
    parser.add_argument("--attacks", nargs="+", choices=[BENIGN, *ATTACKS], default=[BENIGN, *ATTACKS])
    parser.add_argument("--rate", type=float, help="the default is 0.1, and 0.05 where labels stay clean")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1])
    parser.add_argument("--again", action="store_true", help="measure also what is in the result file")
    parser.add_argument("--options", default="", help="further options of `clean`, in one word")
    return parser.parse_args()


def cells(options: argparse.Namespace) -> Iterator[Cell]:
    """Every cell, in an order that sees every attack with the first seed first."""
    sets = [data_set(spec, options.work, options.count) for spec in options.data]
    for seed in options.seeds:
        for attack in options.attacks:
            for data in sets:
                rate = None if attack == BENIGN else options.rate or _RATES.get(ATTACKS[attack].kind, 0.1)
                yield Cell(data, attack, rate, seed, DEFAULT_DETECTOR)


def about(cell: Cell) -> dict[str, Any]:
    """What a cell is."""
    told: dict[str, Any] = {"data": cell.data.name, "images": sum(cell.data.sizes.values())}
    told |= {"attack": cell.attack, "labels": cell.labels, "rate": cell.rate, "real_rate": cell.real_rate}
    return told | {"seed": cell.seed, "target": cell.target, "half": cell.half}


def measured(cell: Cell, options: str) -> dict[str, Any]:
    """Carry out the job of a cell, and read its figures."""
    poisoned = poisoned_set(cell, ATTACKERS)
    manifest = None if cell.attack == BENIGN else poisoned / MANIFEST_FILE
    other = f"-{hashlib.sha256(options.encode()).hexdigest()[:8]}" if options else ""
    out = cell.data.work / "jobs" / f"{cell.name}{other}"
    out.parent.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "diffclean.cli.main", "clean", str(poisoned), "--test", str(cell.data.test)]
    command += [] if manifest is None else ["--poison", str(manifest)]
    command += ["--out", str(out), "--seed", str(cell.seed), "--yes", "--no-self-test", *shlex.split(options)]
    subprocess.run(command, check=True)
    facts = json.loads((out / REPORT_FILE).read_text())
    return figures_of(facts) | {
        "clean_training": clean_training(cell, facts["settings"]["train"], manifest),
        "cores": machine()["cores"],
        "processor": machine()["processor"],
        "commit": commit(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }


def figures_of(facts: dict[str, Any]) -> dict[str, Any]:
    """What the grid keeps of a report."""
    outcome, detection, settings = facts["outcome"], facts["detection"], facts["settings"]
    found = detection["measured"] or {"recall": None, "false_positive_rate": None}
    return {
        "fired": outcome["fired"],
        "before": outcome["before"],
        "anew": outcome["again"],
        "after": outcome["after"],
        "listed": detection["suspects"],
        "added": detection["added"],
        "recall": found["recall"],
        "false_positive_rate": found["false_positive_rate"],
        "arch": settings["train"]["arch"],
        "size": settings["train"]["size"],
        "epochs": [settings["train"]["epochs"], settings["distill"]["epochs"]],
        "variations": settings["variate"].get("variations"),
        "seconds": {step["name"]: round(step["seconds"], 1) for step in facts["cost"]["steps"]},
    }


def clean_training(cell: Cell, taught: dict[str, Any], manifest: Path | None) -> dict[str, Any]:
    """CA and ASR of a classifier that learned from the clean data, with the settings of the job's teacher."""
    loop = LoopConfig(**{name: taught[name] for name in _LOOP}, tensorboard=False)
    out = cell.data.work / "teachers" / f"clean-{taught['arch']}-{loop.epochs}-{loop.seed}.pt"
    if not out.exists():
        train_teacher(cell.data.clean, out, Teaching(taught["arch"], loop, taught["size"]), Hands())
    seen = evaluate(out, cell.data.test, manifest)
    names = ("clean_accuracy", "attack_success_rate")
    return {name: asdict(rate) for name in names if (rate := getattr(seen, name)) is not None}


if __name__ == "__main__":
    sys.exit(main())
