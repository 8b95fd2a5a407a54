"""How good a classifier of the fast recipe is, and how long its training takes.

    python benchmarks/fast_recipe.py --work FOLDER --train cifar10-train/train --test cifar10-test/test

The training is `diffclean train DATA --recipe fast --test TEST`, as it is typed. Its outcome stays in FOLDER, and a
later call reads it from there; a call after a kill goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from record import write_result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="the folder of the classifier and its log")
    parser.add_argument("--train", type=Path, required=True, help="the training set")
    parser.add_argument("--test", type=Path, required=True, help="the test set")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--name", default="fast_recipe", help="the name of the result file")
    options = parser.parse_args()
    figures = measured(options.work / f"fast-{options.seed}.pt", options.train, options.test, options.seed)
    write_result(options.name, figures, f"{options.train.parent.name} and {options.test.parent.name}, all images")


def measured(out: Path, train: Path, test: Path, seed: int) -> dict[str, Any]:
    """The figures of one training, which is carried out or continued unless it is complete."""
    if not out.exists():
        command = [str(Path(sys.executable).with_name("diffclean")), "train", str(train), "--recipe", "fast"]
        subprocess.run([*command, "--test", str(test), "--seed", str(seed), "-o", str(out)], check=True)
    lines = [json.loads(line) for line in out.with_suffix(".jsonl").read_text().splitlines()]
    about, epochs, end = lines[0], [line for line in lines if "epoch" in line], lines[-1]
    return {
        "seed": seed,
        "arch": about["arch"],
        "loop": about["loop"],
        "precision": about["machine"]["precision"],
        "images": about["data"]["images"],
        "test_images": sum(1 for path in test.rglob("*") if path.is_file()),
        "epochs": len(epochs),
        "test_accuracy": end["test_accuracy"],
        "train_accuracy": end["train_accuracy"],
        "seconds": end["seconds"],
        "images_per_second": round(len(epochs) * about["data"]["images"] / end["seconds"], 1),
        "cores": len(os.sched_getaffinity(0)),
    }


if __name__ == "__main__":
    main()
