"""How well the defence holds, attack by attack: a grid of attack x seed x defence on one data set and one engine.

python benchmarks/robustness.py --train CIFAR_TRAIN --test CIFAR_TEST --work WORK --attacks badnets blended \
    --defences none ours --seeds 1 2 3 --arch preact-resnet18 --epochs 60

Every step leaves its outcome in WORK and every cell a JSON file there, so a run that was stopped goes on; a cell's name
holds all that decides it. The whole is written to results/<name>.json; `render.py` makes the table.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from record import write_result
from robustness_data import baseline, clean_copy, subset, variations_of

from diffclean.attacks.manifest import MANIFEST_FILE
from diffclean.attacks.plan import training_plan
from diffclean.attacks.poison import write
from diffclean.attacks.registry import get
from diffclean.classifiers.teacher_config import TeacherConfig
from diffclean.data.suspects import read_list
from diffclean.detection.find import find_suspects
from diffclean.evaluation.evaluate import evaluate
from diffclean.evaluation.listed import measure_list
from diffclean.evaluation.metrics import defense_effectiveness
from diffclean.evaluation.variation_run import evaluate_run
from diffclean.training.distill import distill
from diffclean.training.distill_config import DistillConfig
from diffclean.training.loop_config import LoopConfig
from diffclean.training.train import train
from diffclean.training.train_config import TrainConfig
from diffclean.variation.settings import Settings

log = logging.getLogger("robustness")


@dataclass(frozen=True)
class Defence:
    """One way to a student.

    Attributes:
        images: what they go through.
        how: the student learns from them.
        left_out: the images that `diffclean suspects` lists are left out.
        retrained: it learns from a teacher that was trained anew without those.
    """

    images: str
    how: str
    left_out: bool = False
    retrained: bool = False


DEFENCES = {
    "none": Defence("", ""),
    "ours": Defence("diffusion", "distil"),
    "suspects left out": Defence("originals", "train", left_out=True),
    "suspects left out, ours": Defence("diffusion", "distil", left_out=True, retrained=True),
    "variations alone": Defence("diffusion", "train"),
    "distillation alone": Defence("originals", "distil"),
    "jpeg": Defence("jpeg", "distil"),
    "blur": Defence("blur", "distil"),
}
BASELINES = ["none", "ours", "variations alone", "distillation alone", "jpeg", "blur"]
BENIGN = "benign"


@dataclass(frozen=True)
class Grid:
    """What is the same in all cells.

    Attributes:
        train: clean training set.
        test: clean test set.
        work: where outcomes are kept.
        count: images of the training set that are used, spread evenly over the classes; 0: all.
        target: the target class.
        arch: of teacher and student.
        epochs: of the teacher.
        student_epochs: of the student.
        alpha: see `distill`.
        temperature: see `distill`.
        turn: see `LoopConfig`; of the student.
        zoom: the same.
        settings: of `variate`.
    """

    train: Path
    test: Path
    work: Path
    count: int
    target: str
    arch: str
    epochs: int
    student_epochs: int
    alpha: float
    temperature: float
    settings: Settings
    turn: float = 0.0
    zoom: float = 0.0

    def loop(self, seed: int, student: bool = False) -> LoopConfig:
        """Of a training; teachers and students differ in length only."""
        if not student:
            return LoopConfig(epochs=self.epochs, seed=seed, tensorboard=False)
        return LoopConfig(epochs=self.student_epochs, seed=seed, turn=self.turn, zoom=self.zoom, tensorboard=False)

    def shared(self) -> dict[str, str]:
        """What decides the figures, without where it lies."""
        unused = {name for name in ("turn", "zoom") if not getattr(self, name)}
        left_out = {"train", "test", "work"} | unused
        return {key: str(value) for key, value in asdict(self).items() if key not in left_out}

    def name(self, *parts: Any) -> str:
        """A file's name for what depends on `parts` and on the grid, but not on where it lies."""
        digest = hashlib.sha256(json.dumps([self.shared(), *map(str, parts)], sort_keys=True).encode()).hexdigest()
        return "-".join([*(str(part).replace(" ", "_") for part in parts), digest[:8]])


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    options = arguments()
    grid = grid_of(options)
    cells: list[dict[str, Any]] = []
    for seed in options.seeds:
        for attack in options.attacks:
            rate = options.rate.get(attack)
            # There is nothing to defend against where an attack does not fire.
            silent = attack != BENIGN and not cell(grid, attack, rate, seed, "none")["fired"]
            for defence in ["none"] if silent else options.defences:
                cells.append(cell(grid, attack, rate, seed, defence))
                write_result(options.name, figures_of(grid, options, cells), options.data)


def figures_of(grid: Grid, options: argparse.Namespace, cells: list[dict[str, Any]]) -> dict[str, Any]:
    """What goes into the result file."""
    told = {name: getattr(options, name) for name in ("strength", "steps", "variations")}
    return {"grid": grid.shared(), "variation": {k: v for k, v in told.items() if v is not None}, "cells": cells}


def grid_of(options: argparse.Namespace) -> Grid:
    """What the command line says of all cells."""
    return Grid(
        train=options.train,
        test=options.test,
        work=options.work,
        count=options.count,
        target=options.target,
        arch=options.arch,
        epochs=options.epochs,
        student_epochs=options.student_epochs or options.epochs,
        alpha=options.alpha,
        temperature=options.temperature,
        turn=options.turn,
        zoom=options.zoom,
        settings=Settings(
            engine=options.engine, steps=options.steps, strength=options.strength, variations=options.variations
        ),
    )


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", default="robustness")
    parser.add_argument("--defences", nargs="+", choices=DEFENCES, default=BASELINES)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--strength", type=float)
    parser.add_argument("--variations", type=int, default=1)
    parser.add_argument("--temperature", type=float, default=10.0)
    add_grid_arguments(parser, [BENIGN, "badnets", "blended", "ftrojan"])
    options = parser.parse_args()
    options.rate = dict(options.rate)
    return options


def add_grid_arguments(parser: argparse.ArgumentParser, attacks: list[str]) -> None:
    """The options that any grid of cells has; `attacks` are those it runs unasked."""
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--test", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--data", default="CIFAR-10 (JPEG-coded copies), 32 px")
    parser.add_argument("--count", type=int, default=0)
    parser.add_argument("--attacks", nargs="+", default=attacks)
    parser.add_argument("--rate", nargs="*", type=_rate, default=[], help="attack=rate; 0.1 where none is given")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1])
    parser.add_argument("--target", default="airplane")
    parser.add_argument("--arch", default="preact-resnet18")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--student-epochs", type=int)
    parser.add_argument("--alpha", type=float, default=1.0)
    parser.add_argument("--turn", type=float, default=0.0, help="of the student's images, in degrees")
    parser.add_argument("--zoom", type=float, default=0.0, help="of the student's images")
    parser.add_argument("--engine", default="micro")


def _rate(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    return name, float(value)


def cell(grid: Grid, attack: str, rate: float | None, seed: int, defence: str) -> dict[str, Any]:
    """Measure one cell, or read what was measured before."""
    path = grid.work / "cells" / f"{grid.name(attack, rate, seed, defence)}.json"
    if path.exists():
        found: dict[str, Any] = json.loads(path.read_text())
        return found
    log.info("cell: %s, seed %d, %s", attack, seed, defence)
    poisoned = poisoned_set(grid, attack, rate, seed)
    manifest = None if attack == BENIGN else poisoned / MANIFEST_FILE
    teacher = teacher_of(grid, attack, rate, seed, poisoned)
    before = evaluate(teacher, grid.test, manifest)
    chosen = DEFENCES[defence]
    result: dict[str, Any] = {"attack": attack, "rate": rate, "seed": seed, "defence": defence}
    result["like_corruptions"] = None if attack == BENIGN else get(attack).like_corruptions
    after = before
    if chosen.images:
        images = seen_by_student(grid, attack, rate, seed, chosen.images, poisoned)
        student_teacher, without = teacher, None
        if chosen.left_out:
            varied = seen_by_student(grid, attack, rate, seed, "diffusion", poisoned)
            without = suspects_of(grid, (attack, rate, seed), teacher, varied)
            result["suspects"] = told_of(without, manifest)
        if chosen.retrained:
            parts = (attack, rate, seed, "suspects left out")
            student_teacher = student_of(grid, parts, teacher, poisoned, "train", seed, without)
        parts = (attack, rate, seed, defence)
        student = student_of(grid, parts, student_teacher, images, chosen.how, seed, without)
        after = evaluate(student, grid.test, manifest)
        if defence in ("ours", "variations alone"):
            run = evaluate_run(teacher, images)
            links = {"label_preservation": run.label_preservation, "trigger_survival": run.trigger_survival}
            result["links"] = {name: asdict(link) for name, link in links.items() if link is not None}
    result["clean_accuracy"] = asdict(after.clean_accuracy)
    result["undefended_clean_accuracy"] = asdict(before.clean_accuracy)
    asr0, asr1 = before.attack_success_rate, after.attack_success_rate
    if asr0 is not None and asr1 is not None and after.robust_accuracy is not None:
        result |= {"attack_success_rate": asdict(asr1), "undefended_attack_success_rate": asdict(asr0)}
        result |= {"robust_accuracy": asdict(after.robust_accuracy), "fired": before.fired}
        rates = asr0.value, asr1.value, before.clean_accuracy.value, after.clean_accuracy.value
        result["defense_effectiveness"] = defense_effectiveness(*rates)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".part")
    temporary.write_text(json.dumps(result, indent=1))
    temporary.replace(path)
    return result


def poisoned_set(grid: Grid, attack: str, rate: float | None, seed: int) -> Path:
    """The suspect training set; for the benign run, the clean one in the same form."""
    clean = clean_copy(subset(grid.train, grid.count, grid.work), grid.work)
    if attack == BENIGN:
        return clean
    out = grid.work / "poisoned" / grid_free_name(attack, rate, seed, grid.count, grid.target)
    if not out.exists():
        out.parent.mkdir(parents=True, exist_ok=True)
        write(training_plan(subset(grid.train, grid.count, grid.work), attack, rate, grid.target, seed), out)
    return out


def grid_free_name(*parts: Any) -> str:
    """A name for what does not depend on models or engine."""
    return "-".join(str(part) for part in parts)


def teacher_of(grid: Grid, attack: str, rate: float | None, seed: int, data: Path) -> Path:
    """The classifier that was trained on the suspect set as it is."""
    name = grid_free_name(attack, rate, seed, grid.count, grid.target, grid.arch, grid.epochs)
    out = grid.work / "teachers" / f"{name}.pt"
    if not out.exists():
        train(TrainConfig(data, out, arch=grid.arch, loop=grid.loop(seed)))
    return out


def seen_by_student(grid: Grid, attack: str, rate: float | None, seed: int, kind: str, poisoned: Path) -> Path:
    """The images that a student learns from."""
    if kind == "originals":
        return poisoned
    if kind != "diffusion":
        return baseline(poisoned, kind, grid.work / kind / poisoned.name)
    clean = clean_copy(subset(grid.train, grid.count, grid.work), grid.work)
    return variations_of(poisoned, clean, grid.settings, grid.work / "variations")


def suspects_of(grid: Grid, parts: tuple[Any, ...], teacher: Path, images: Path) -> Path:
    """The list of suspects."""
    out = grid.work / "suspects" / f"{grid.name(*parts)}.json"
    if not out.exists():
        find_suspects(None, "variation-drop", teacher, images).write(out)
    return out


def told_of(suspects: Path, manifest: Path | None) -> dict[str, Any]:
    """How many images are on a list, how many are poisoned, how many both; the separation of each class.

    Where there was an attack, also precision, recall, false positives and AUROC of the list (`measure_list`).
    """
    found = read_list(suspects)
    told: dict[str, Any] = {"listed": len(found.keys), "poisoned": 0, "both": 0}
    told["separation"] = {judged.name: round(judged.separation, 4) for judged in found.classes}
    if manifest is None:
        return told
    figures = measure_list(found, manifest)
    return told | {"poisoned": figures.recall.count, "both": figures.recall.hits, "figures": asdict(figures)}


def student_of(
    grid: Grid, parts: tuple[Any, ...], teacher: Path, images: Path, how: str, seed: int, without: Path | None = None
) -> Path:
    """Distilled, or trained on the labels."""
    out = grid.work / "students" / f"{grid.name(*parts)}.pt"
    if out.exists():
        return out
    loop = grid.loop(seed, student=True)
    if how == "train":
        train(TrainConfig(images, out, without=without, arch=grid.arch, loop=loop))
    else:
        which = DistillConfig(TeacherConfig(teacher), images, out, grid.arch, grid.temperature, grid.alpha, loop=loop)
        distill(replace(which, without=without))
    return out


if __name__ == "__main__":
    main()
