"""Find the best recipe of `micro`: measure what each keeps and removes, choose on one half, report on the other.

    python benchmarks/micro_recipes.py --run shipped micro --run C RUNS/c --work WORK --images CIFAR_TEST
        --clean clean.pt --teacher badnets.pt BADNETS/poison.json --teacher sig.pt SIG/poison.json
        --teacher blended.pt BLENDED/poison.json --teacher bpp.pt BPP/poison.json

A run is a folder that `diffclean pretrain` wrote, finished or not (its last checkpoint counts), a model's folder, or
the name of an engine. The first half of the teachers and every second image choose the setting at which the fewest
triggers survive among those that keep enough labels; the other teachers and the other images say what that setting is
worth; then the halves change places. `--looks 4:0.2` measures views of a model with coarse views directly, by their
averaging factor and noise, so that the curve from strengths to looks can be chosen by figures.

Each point is kept in WORK as soon as it is measured. Repeat a command that was stopped to continue it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from micro_quality import attacked, balanced, measured, undefended, varied_images
from record import Pieces, write_result

from diffclean.classifiers.checkpoints import load
from diffclean.classifiers.networks import pick_device
from diffclean.data.hashes import sha256_of
from diffclean.families.base import Look
from diffclean.families.micro_model import MicroUNet
from diffclean.pretraining.pretrain import save_model
from diffclean.runtime.choose import Engine
from diffclean.variation.sampler import Sampler, SamplerSettings
from diffclean.variation.settings import Settings, open_for

KEPT_LABELS = (0.9, 0.7)
"""Label preservation asked of the default, and of the setting that finds suspects."""
Place = tuple[int, float, str]
"""Steps, strength, look; the look is "" where the strength says it."""


def main() -> None:
    options = arguments()
    keys, images, labels = balanced(options.images, options.count)
    sets, teachers = attacked(images, keys, options.teacher)
    judges = load(options.clean, pick_device()), teachers
    attacks = [manifest.attack for _, manifest in teachers]
    told = {name: getattr(options, name) for name in ("count", "scheduler", "seed", "batch")}
    pieces = Pieces(options.work / "micro_recipes.pieces.json", {**told, "attacks": attacks})
    runs: dict[str, Any] = {}
    for name, path in options.run:
        model, facts = model_of(path, options.work / name)
        engine = open_for(Settings(engine=model, runtime=options.runtime, batch=options.batch)).engine
        points = []
        for place in places(engine, options):
            one = partial(point, engine, place, judges, sets, keys, labels, options)
            points.append(pieces.get(f"{engine.identity} {place}", one))
        runs[name] = {**facts, "engine": engine.identity, "points": points, "choices": choices(points, attacks)}
        figures = {**told, "attacks": attacks, "undefended": undefended(*judges, sets, labels), "runs": runs}
        write_result(options.name, figures, f"{len(images)} CIFAR-10 test images (JPEG-coded copies), 32 px")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", nargs=2, action="append", required=True, metavar=("NAME", "RUN"))
    parser.add_argument("--work", type=Path, required=True, help="the folder of models and points")
    parser.add_argument("--images", type=Path, required=True, help="labelled test images")
    parser.add_argument("--clean", type=Path, required=True, help="a classifier trained on clean data")
    parser.add_argument("--teacher", nargs=2, type=Path, action="append", required=True, metavar=("MODEL", "MANIFEST"))
    parser.add_argument("--count", type=int, default=1000, help="the number of test images, equal for each class")
    parser.add_argument("--strengths", type=float, nargs="*", default=[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0])
    parser.add_argument("--looks", nargs="*", default=[], metavar="FACTOR:NOISE", help="for models with coarse views")
    parser.add_argument("--steps", type=int, nargs="+", default=[1])
    parser.add_argument("--scheduler", default="ddim")
    parser.add_argument("--seed", type=int, default=0, help="the seed of the variations")
    parser.add_argument("--batch", type=int, default=50)
    parser.add_argument("--runtime", default="auto")
    parser.add_argument("--name", default="micro_recipes", help="the name of the result file")
    return parser.parse_args()


def model_of(run: str, out: Path) -> tuple[str, dict[str, Any]]:
    """What `--engine` calls a run's model, which is written to `out`, and what is known of its training."""
    path = Path(run)
    if not (path / "checkpoint.pt").is_file():
        return run, {}
    state = torch.load(path / "checkpoint.pt", map_location="cpu", weights_only=True)
    config = state["config"]
    shape = {name: config[name] for name in ("channels", "blocks", "layers", "heads")}
    network = MicroUNet(sample_size=config["size"], **shape, view=2 if config.get("coarse_views") else 1)
    network.load_state_dict(state["ema"])
    model = out / f"model-{state['step']}-{sha256_of(path / 'checkpoint.pt')[:8]}"
    if not model.exists():
        save_model(network, model.with_suffix(".part"))
        model.with_suffix(".part").rename(model)
    return str(model), {"images": state["step"] * config["batch"], "config": config}


def places(engine: Engine, options: argparse.Namespace) -> list[Place]:
    """What is measured of an engine."""
    coarse = "view_cell" in {port.name for port in engine.manifest.components["unet"].inputs}
    looks = options.looks if coarse else []
    return [
        *((steps, strength, "") for steps in options.steps for strength in options.strengths),
        *((steps, 1.0, look) for steps in options.steps for look in looks),
    ]


def point(
    engine: Engine,
    place: Place,
    judges: tuple[Any, list[Any]],
    sets: dict[str, Any],
    keys: list[str],
    labels: Any,
    options: argparse.Namespace,
) -> dict[str, Any]:
    """Label preservation and survival at one place: of all images, and of each half of them."""
    steps, strength, named = place
    factor, _, level = named.partition(":")
    look = Look(start=1.0, level=float(level), factor=float(factor)) if named else None
    sampler = Sampler(engine, SamplerSettings(steps, strength, 1.0, options.scheduler), look)
    varied = {name: varied_images(sampler, keys, each, options) for name, each in sets.items()}
    found: dict[str, Any] = {
        "steps": steps,
        "strength": strength,
        "look": named,
        **measured(*judges, sets, varied, labels),
    }
    for number, half in enumerate(halves(labels)):
        before, after = ({name: each[half] for name, each in group.items()} for group in (sets, varied))
        found[f"half {number}"] = measured(*judges, before, after, labels[half])
    return found


def halves(labels: Any) -> list[Any]:
    """Every second image of each class, and the others."""
    second = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        second[np.flatnonzero(labels == label)[1::2]] = True
    return [~second, second]


def choices(points: Sequence[dict[str, Any]], attacks: list[str]) -> dict[str, list[dict[str, Any]]]:
    """For each share of labels to keep: what each half of attacks and images chooses, and what the others report."""
    middle = (len(attacks) + 1) // 2
    groups = [attacks[:middle], attacks[middle:]]
    return {
        str(kept): [choice(points, groups[half], groups[1 - half], half, kept) for half in (0, 1) if groups[half]]
        for kept in KEPT_LABELS
    }


def choice(
    points: Sequence[dict[str, Any]], choosing: list[str], reporting: list[str], half: int, kept: float
) -> dict[str, Any]:
    """The setting that half of the attacks and images choose, or None where none keeps enough; the others' figures."""
    ours, others = f"half {half}", f"half {1 - half}"
    enough = [each for each in points if each[ours]["label_preservation"]["preservation"] >= kept]
    if not enough:
        return {"chosen_by": choosing, "setting": None}

    def left(each: dict[str, Any]) -> tuple[float, float]:
        survival = sum(max(0.0, each[ours][name]["survival"]) for name in choosing)
        return survival, -each[ours]["label_preservation"]["preservation"]

    best = min(enough, key=left)
    return {
        "chosen_by": choosing,
        "setting": {name: best[name] for name in ("steps", "strength", "look")},
        "label_preservation": best[others]["label_preservation"]["preservation"],
        "survival": {name: best[others][name]["survival"] for name in reporting},
    }


if __name__ == "__main__":
    main()
