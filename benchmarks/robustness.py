"""Measure the defence attack by attack: a grid of attack x seed x defence on one data set and one engine.

python benchmarks/robustness.py --train CIFAR_TRAIN --test CIFAR_TEST --work WORK --attacks badnets blended \
    --defences none ours --seeds 1 2 3 --arch preact-resnet18 --epochs 60

Every step leaves its outcome in WORK, and every cell leaves a JSON file there, so a stopped run can continue. The name
of a cell contains everything that decides it. The grid is written to results/<name>.json; `render.py` makes the table.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from record import write_result
from robustness_data import baseline, clean_copy, subset, variations_of

from diffclean.attacks.manifest import MANIFEST_FILE
from diffclean.attacks.plan import training_plan
from diffclean.attacks.poison import write
from diffclean.attacks.registry import get
from diffclean.evaluation.evaluate import Evaluation
from diffclean.evaluation.metrics import defense_effectiveness
from diffclean.training.loop_config import LoopConfig
from diffclean.variation.settings import Settings
from diffclean.workflow import steps
from diffclean.workflow.chain import run_chain, train_first
from diffclean.workflow.chain_config import Chain, Places
from diffclean.workflow.runner import Runner
from diffclean.workflow.steps import Distilling, Hands, Teaching
from diffclean.workflow.suspects import FoundSuspects, reread

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
    parser.add_argument("--rate", nargs="*", type=_rate, default=[], help="attack=rate; the default rate is 0.1")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1])
    parser.add_argument("--target", default="airplane")
    parser.add_argument("--arch", default="preact-resnet18")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--student-epochs", type=int)
    parser.add_argument("--alpha", type=float, default=1.0)
    parser.add_argument("--turn", type=float, default=0.0, help="how far the student's images are turned, in degrees")
    parser.add_argument("--zoom", type=float, default=0.0, help="how far the student's images are zoomed")
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
    case = Case(grid, attack, rate, seed, defence)
    train_first(case.chain, case.places, RUNNER)
    before = steps.measure(case.places.teacher, grid.test, case.manifest, RUNNER.hands)
    result: dict[str, Any] = {"attack": attack, "rate": rate, "seed": seed, "defence": defence}
    result["like_corruptions"] = None if attack == BENIGN else get(attack).like_corruptions
    after = before
    if case.chosen.images:
        suspects = make_student(case)
        if suspects is not None:
            result["suspects"] = told_of(suspects)
        after = steps.measure(case.places.student, grid.test, case.manifest, RUNNER.hands)
        if defence in ("ours", "variations alone"):
            run = steps.measure_variations(case.places.teacher, case.places.variations, RUNNER.hands)
            links = {"label_preservation": run.label_preservation, "trigger_survival": run.trigger_survival}
            result["links"] = {name: asdict(link) for name, link in links.items() if link is not None}
    result |= figures_beside(before, after)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".part")
    temporary.write_text(json.dumps(result, indent=1))
    temporary.replace(path)
    return result


def figures_beside(before: Evaluation, after: Evaluation) -> dict[str, Any]:
    """The rates of the student beside those of the undefended teacher."""
    result: dict[str, Any] = {"clean_accuracy": asdict(after.clean_accuracy)}
    result["undefended_clean_accuracy"] = asdict(before.clean_accuracy)
    asr0, asr1 = before.attack_success_rate, after.attack_success_rate
    if asr0 is not None and asr1 is not None and after.robust_accuracy is not None:
        result |= {"attack_success_rate": asdict(asr1), "undefended_attack_success_rate": asdict(asr0)}
        result |= {"robust_accuracy": asdict(after.robust_accuracy), "fired": before.fired}
        rates = asr0.value, asr1.value, before.clean_accuracy.value, after.clean_accuracy.value
        result["defense_effectiveness"] = defense_effectiveness(*rates)
    return result


RUNNER = Runner(Hands())


@dataclass(frozen=True)
class Case:
    """One cell, as the steps of the whole job see it."""

    grid: Grid
    attack: str
    rate: float | None
    seed: int
    defence: str

    @property
    def chosen(self) -> Defence:
        """The way to the student."""
        return DEFENCES[self.defence]

    @cached_property
    def poisoned(self) -> Path:
        """The suspect training set."""
        return poisoned_set(self.grid, self.attack, self.rate, self.seed)

    @property
    def manifest(self) -> Path | None:
        """What is known of the attack."""
        return None if self.attack == BENIGN else self.poisoned / MANIFEST_FILE

    @cached_property
    def places(self) -> Places:
        """Where outcomes lie: each file's name holds all that decides it."""
        grid, parts = self.grid, (self.attack, self.rate, self.seed)
        teacher = grid_free_name(*parts, grid.count, grid.target, grid.arch, grid.epochs)
        images = seen_by_student(grid, self.chosen.images, self.poisoned) if self.chosen.images else self.poisoned
        needs_looks = self.chosen.left_out and self.chosen.images != "diffusion"
        return Places(
            teacher=grid.work / "teachers" / f"{teacher}.pt",
            variations=images,
            student=grid.work / "students" / f"{grid.name(*parts, self.defence)}.pt",
            suspects=grid.work / "suspects" / f"{grid.name(*parts)}.json",
            teacher_anew=grid.work / "students" / f"{grid.name(*parts, 'suspects left out')}.pt",
            looks=seen_by_student(grid, "diffusion", self.poisoned) if needs_looks else images,
        )

    @property
    def chain(self) -> Chain:
        """The whole job; the variations are made beforehand, since all cells share those of clean images."""
        grid = self.grid
        return Chain(
            data=self.poisoned,
            teaching=Teaching(grid.arch, grid.loop(self.seed)),
            distilling=Distilling(grid.arch, grid.loop(self.seed, student=True), grid.temperature, grid.alpha),
            settings=None,
            detector="variation-drop" if self.chosen.left_out else None,
            teaching_anew=Teaching(grid.arch, grid.loop(self.seed, student=True)),
            poison=self.manifest,
        )


def make_student(case: Case) -> FoundSuspects | None:
    """The student, in the cell's way; and the suspects, where they are left out."""
    chain, places = case.chain, case.places
    if case.chosen.how == "distil":
        return run_chain(chain, places, RUNNER).suspects
    found, without = None, None
    if case.chosen.left_out:
        RUNNER.do(
            "find suspects",
            lambda: steps.list_suspects(
                chain.data, places.suspects, "variation-drop", RUNNER.hands, places.teacher, places.looks
            ),
            places.suspects,
        )
        found, without = reread(places.suspects, case.manifest), places.suspects
    how = Teaching(case.grid.arch, case.grid.loop(case.seed, student=True))
    RUNNER.do(
        "train the student on labels",
        lambda: steps.train_teacher(places.variations, places.student, how, RUNNER.hands, without),
        places.student,
    )
    return found


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


def seen_by_student(grid: Grid, kind: str, poisoned: Path) -> Path:
    """The images that a student learns from."""
    if kind == "originals":
        return poisoned
    if kind != "diffusion":
        return baseline(poisoned, kind, grid.work / kind / poisoned.name)
    clean = clean_copy(subset(grid.train, grid.count, grid.work), grid.work)
    return variations_of(poisoned, clean, grid.settings, grid.work / "variations")


def told_of(found: FoundSuspects) -> dict[str, Any]:
    """How many images are on a list, how many are poisoned, how many both; the separation of each class.

    Where there was an attack, also precision, recall, false positives and AUROC of the list (`measure_list`).
    """
    told: dict[str, Any] = {"listed": found.suspects, "poisoned": 0, "both": 0}
    told["separation"] = {judged.name: round(judged.separation, 4) for judged in found.classes}
    figures = found.against_manifest
    if figures is None:
        return told
    return told | {"poisoned": figures.recall.count, "both": figures.recall.hits, "figures": asdict(figures)}


if __name__ == "__main__":
    main()
