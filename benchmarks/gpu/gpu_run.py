"""Run everything that needs a GPU, in order, ten minutes at a time: `make gpu`.

    make gpu WORK=FOLDER TRAIN=CIFAR_TRAIN TEST=CIFAR_TEST TRUSTED=TINY_IMAGENET
    python benchmarks/gpu/gpu_run.py --work FOLDER [--train FOLDER] [--test FOLDER] [--trusted FOLDER_OR_NPY]

Repeat the same command until it says that all is done. Finished results are kept in WORK, and every command continues
where it was stopped. `--list` shows the commands and what is left; `--only NAME ...` runs some of them. Commands for
which you name no data are left out and listed. At the end the script says which files to bring back.
"""

from __future__ import annotations

import argparse
import json
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from gpu_harness import AGAIN, Pieces

ROOT = Path(__file__).parents[2]
GRACE_S = 20
"""How long a command has to end after it was asked to."""
SHORTEST_S = 30
"""With less time than this left, no command is begun."""


@dataclass(frozen=True)
class Command:
    """One benchmark.

    Attributes:
        name: what people call it.
        line: what is typed after `python`; {work}, {train}, {test} and {trusted} stand for paths, and a `*` for what a
            command before it made.
        why: what the figures are for.
        knows_limit: whether it takes `--limit`, and so ends between its pieces; others are stopped, and go on.
    """

    name: str
    line: str
    why: str
    knows_limit: bool = False

    @property
    def needs(self) -> list[str]:
        """The data that it is told."""
        return [name for name in ("train", "test", "trusted") if f"{{{name}}}" in self.line]


_GRID = "benchmarks/robustness.py --train {train} --test {test} --work {work}/grid"
_ATTACKS = "--attacks benign badnets blended ftrojan sig bpp wanet --rate sig=0.05"
_TEACHERS = (
    "--clean {work}/grid/teachers/benign-None-1-*.pt "
    "--teacher {work}/grid/teachers/badnets-None-1-*.pt {work}/grid/poisoned/badnets-None-1-*/poison.json "
    "--teacher {work}/grid/teachers/blended-None-1-*.pt {work}/grid/poisoned/blended-None-1-*/poison.json"
)
COMMANDS = (
    Command(
        "teachers",
        f"{_GRID} --attacks benign badnets blended --defences none --name robustness_teachers",
        "Classifiers that judge the recipes below",
    ),
    Command(
        "recipes",
        "benchmarks/gpu/pretrain_compare.py --data {trusted} --work {work}/recipes --minutes 3 --images {test} "
        + _TEACHERS,
        "Which recipe of `micro` to ship",
        knows_limit=True,
    ),
    Command("grid, seed 1", f"{_GRID} --defences none ours {_ATTACKS}", "The defence on 50,000 images"),
    Command("grid, seeds", f"{_GRID} --defences none ours --seeds 1 2 3 {_ATTACKS}", "Its spread over three seeds"),
    Command("grid, baselines", f"{_GRID} --seeds 1 2 3 {_ATTACKS}", "What it is compared with"),
    Command(
        "grid, turned",
        f"{_GRID} --defences none ours --seeds 1 2 3 {_ATTACKS} --strength 1 --variations 8 --turn 60 --zoom 0.3 "
        "--student-epochs 120 --name robustness_turned",
        "The defence from the weakest look",
    ),
    Command(
        "grid, suspects",
        f"{_GRID} --seeds 1 2 3 --strength 0.4 --variations 4 --defences none 'suspects left out' "
        f"'suspects left out, ours' {_ATTACKS} --name robustness_suspects",
        "Suspects left out",
    ),
    Command(
        "curve",
        "benchmarks/robustness_curve.py --train {train} --test {test} --work {work}/grid --seeds 1 2 3",
        "What sets the defaults, one factor at a time",
    ),
    Command(
        "throughput",
        "benchmarks/gpu/gpu_throughput.py --work {work}/speed",
        "Speed of the full-size family against diffusers' pipeline, and where the time goes",
        knows_limit=True,
    ),
    Command(
        "distillation",
        "benchmarks/gpu/distill_speed.py --images {train} --work {work}/distill --arch resnet18 --batch 512",
        "Speed of distillation against timm's loop",
        knows_limit=True,
    ),
    Command(
        "tensorrt-rtx",
        "benchmarks/gpu/tensorrt_rtx_try.py --work {work}/rtx",
        "Does an engine of TensorRT-RTX run on this architecture?",
        knows_limit=True,
    ),
    Command("tests", "-m pytest -q -m gpu -p no:cacheprovider", "The tests that are marked `gpu`"),
)


def main() -> int:
    options = arguments()
    done = Pieces(options.work / "gpu.json", {})
    chosen = [command for command in COMMANDS if not options.only or command.name in options.only]
    if options.list:
        for command in chosen:
            print(f"{'done' if command.line in done.made else 'to do':6} {command.name}: {command.why}")
            print(f"       python {command.line}")
        return 0
    ends = time.monotonic() + 60 * options.minutes
    wanting = []
    for command in chosen:
        if command.line in done.made:
            continue
        if missing := [name for name in command.needs if getattr(options, name) is None]:
            wanting.append(f"{command.name} (needs {', '.join('--' + name for name in missing)})")
            continue
        if ends - time.monotonic() < SHORTEST_S:
            return again(command)
        code = carried_out(command, options, ends)
        if code == AGAIN:
            return again(command)
        if code:
            print(f"{command.name} failed with exit code {code}; the others go on.", flush=True)
            wanting.append(f"{command.name} (failed)")
            continue
        done.get(command.line, partial(time.strftime, "%Y-%m-%d %H:%M"))
    print(f"Not done: {'; '.join(wanting)}." if wanting else "All is done.")
    bring_back(options.work)
    return 1 if wanting else 0


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--work", type=Path, required=True, help="the folder in which everything is kept between the commands"
    )
    parser.add_argument("--train", type=Path, help="CIFAR-10's training images, one folder a class")
    parser.add_argument("--test", type=Path, help="its test images")
    parser.add_argument("--trusted", type=Path, help="trusted images: a folder, or (N, S, S, 3) in a .npy")
    parser.add_argument("--minutes", type=float, default=9.5, help="after which this command ends")
    parser.add_argument("--only", nargs="+", choices=[command.name for command in COMMANDS], metavar="NAME")
    parser.add_argument("--list", action="store_true", help="show the commands and what is done, and stop")
    options = parser.parse_args()
    for name in ("work", "train", "test", "trusted"):  # the commands run in the repository's root
        if (path := getattr(options, name)) is not None:
            setattr(options, name, path.absolute())
    return options


def carried_out(command: Command, options: argparse.Namespace, ends: float) -> int:
    """Run a command for as long as there is time.

    Returns:
        Its exit code; `AGAIN` where the time did not suffice.
    """
    words = [word.format_map(vars(options)) for word in shlex.split(command.line)]
    line = [sys.executable, *(path for word in words for path in found(word))]
    if command.knows_limit:
        line += ["--limit", f"{max(0.1, (ends - time.monotonic() - GRACE_S) / 60):.2f}"]
    print(f"{command.name}: {shlex.join(line[1:])}", flush=True)
    process = subprocess.Popen(line, cwd=ROOT)
    try:
        return process.wait(max(1.0, ends - time.monotonic()))
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        return AGAIN


def found(word: str) -> list[str]:
    """The one path that a word with a `*` means; any other word as it is."""
    if "*" not in word:
        return [word]
    path = Path(word)
    anchor = Path(path.anchor)
    paths = sorted(anchor.glob(str(path.relative_to(anchor))))
    if len(paths) != 1:
        raise SystemExit(f"Expected one file {word}, found {len(paths)}: was the command before it carried out?")
    return [str(paths[0])]


def again(command: Command) -> int:
    """Say that it goes on."""
    print(f"The time is over at: {command.name}. Give the same command again; it goes on there.", flush=True)
    return AGAIN


def bring_back(work: Path) -> None:
    """Say which files hold what was found."""
    from record import results_folder

    print("Bring back:")
    for path in sorted(results_folder().glob("*.json")):
        if "gpu" in json.loads(path.read_text()).get("machine", {}):
            print(f"  {path}")
    for folder in sorted(path for path in (work / "recipes").glob("*") if (path / "model").is_dir()):
        print(f"  {folder}: model/, config.json, log.jsonl, loss.png, samples-*.png, quality-*.png")


if __name__ == "__main__":
    sys.exit(main())
