"""Train several recipes of `diffclean pretrain` for equal times, and measure what their models keep and remove.

    python benchmarks/gpu/pretrain_compare.py --data TINY_IMAGENET --work WORK --minutes 3 --limit 9
        --images CIFAR_TEST --clean clean.pt --teacher badnets.pt BADNETS_DATA/poison.json

Repeat the same command until it says that all is done: `--limit` ends it after so many minutes, and everything that was
trained or measured is kept in WORK. A recipe is a table of settings of `pretrain`: those below, or a TOML file's.

    ["wide, longer"]
    channels = 96
    minutes = 6

Each model is measured by the functions of `micro_quality.py` on images as they are and enlarged to 64 px before their
triggers are put in; the classifiers see them at the size they were trained on. `choice` is the point at which the
fewest triggers survive among those that keep 0.9 of the labels. Ship a model by
`python benchmarks/ship_micro.py WORK/<recipe>`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import sys
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
from gpu_harness import Limit, add_arguments, measured
from micro_quality import attacked, balanced, curve, save_grid, undefended

from diffclean.classifiers.checkpoints import load
from diffclean.classifiers.networks import pick_device
from diffclean.data.fit import Fit, to_square
from diffclean.data.pixels import Pixels
from diffclean.environment import usable_cores
from diffclean.pretraining.config import PretrainConfig
from diffclean.pretraining.pack import packed_images
from diffclean.pretraining.pretrain import pretrain
from diffclean.variation.settings import Settings, open_for

BASE: dict[str, Any] = {"batch": 256, "learning_rate": 2e-3, "ema": 0.999}
"""Of all recipes below: a GPU is not busy with less."""
LOW: dict[str, Any] = {**BASE, "low_resolution": 0.5}
RECIPES: dict[str, dict[str, Any]] = {
    "plain": BASE,
    "low-resolution": LOW,
    "low-resolution-start": {**LOW, "start_share": 0.3},
    "wide": {**LOW, "start_share": 0.3, "channels": 96, "layers": 6},
    "held": {**LOW, "start_share": 0.3, "decay_share": 0.0},
    "uncorrupted": {**LOW, "start_share": 0.3, "corrupt": False},
}
KEPT_LABELS = 0.9


def main() -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    options = arguments()
    limit = Limit(options.limit)
    settings = {name: getattr(options, name) for name in ("count", "strengths", "steps", "scheduler", "seed", "sides")}
    asked = {f"{name}, {digest(config)}": (name, config) for name, config in recipes(options).items()}
    plan: dict[str, Callable[[], Any]] = {}
    for key, (name, config) in asked.items():
        plan[f"{key}: training"] = partial(trained, options, name, config, limit.stop)
        plan |= {f"{key}: {side} px": partial(quality, options, name, side) for side in options.sides}

    def figures_of(made: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, (name, config) in asked.items():
            own = [piece for piece in plan if piece.startswith(f"{key}: ") and piece in made]
            parts = {piece.removeprefix(f"{key}: "): made[piece] for piece in own}
            if "training" in parts:
                found[name] = {"config": asdict(config), **parts}
        return {"recipes": found}

    data = f"{options.count} CIFAR-10 test images (JPEG-coded copies)"
    return measured(options, settings, plan, figures_of, data, limit=limit)


def digest(config: PretrainConfig) -> str:
    """What tells two settings of one name apart."""
    return hashlib.sha256(json.dumps(asdict(config), sort_keys=True, default=str).encode()).hexdigest()[:8]


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="trusted images: a folder, or (N, S, S, 3) in a .npy")
    add_arguments(parser, "pretrain_compare")
    parser.add_argument("--minutes", type=float, default=3.0, help="of training, each recipe")
    parser.add_argument("--recipes", type=Path, help="a TOML file, a table a recipe")
    parser.add_argument("--only", nargs="+", help="these recipes")
    parser.add_argument("--images", type=Path, required=True, help="labelled test images")
    parser.add_argument("--clean", type=Path, required=True, help="a classifier trained on clean data")
    parser.add_argument("--teacher", nargs=2, type=Path, action="append", required=True, metavar=("MODEL", "MANIFEST"))
    parser.add_argument("--count", type=int, default=1000, help="test images, the same number of each class")
    parser.add_argument("--sides", type=int, nargs="+", default=[32, 64], help="in pixels, of the test images")
    parser.add_argument("--strengths", type=float, nargs="+", default=[0.1, 0.2, 0.3])
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--scheduler", default="ddim")
    parser.add_argument("--seed", type=int, default=0, help="of the variations")
    parser.add_argument("--batch", type=int, default=50)
    return parser.parse_args()


def recipes(options: argparse.Namespace) -> dict[str, PretrainConfig]:
    """Name -> settings; a recipe that names no time gets the one that all have."""
    tables = tomllib.loads(options.recipes.read_text()) if options.recipes else RECIPES
    if unknown := sorted(set(options.only or ()) - set(tables)):
        raise SystemExit(f"There is no recipe {', '.join(unknown)}; there are {', '.join(tables)}.")
    return {
        name: PretrainConfig(**{"minutes": options.minutes, **{key.replace("-", "_"): table[key] for key in table}})
        for name, table in tables.items()
        if not options.only or name in options.only
    }


def trained(options: argparse.Namespace, name: str, config: PretrainConfig, stop: Event) -> dict[str, Any]:
    """Train a recipe, or go on with it; what came of it."""
    if options.data.suffix == ".npy":
        images: Pixels = np.load(options.data, mmap_mode="r", allow_pickle=False)
    else:
        images, _ = packed_images(options.data, options.work, config.size, int(usable_cores()), stop=stop)
    result = pretrain(images, options.work / name, config, stop=stop)
    weights = next(result.model_dir.rglob("*.safetensors"))
    return {
        "steps": result.steps,
        "images": result.steps * config.batch,
        "validation_loss": result.validation_loss,
        "megabytes": weights.stat().st_size / 1e6,
        "images_per_second": result.images_per_second,
    }


def quality(options: argparse.Namespace, name: str, side: int) -> dict[str, Any]:
    """Label preservation and trigger survival of a recipe's model, on images of one side; and a picture of samples."""
    keys, images, labels = balanced(options.images, options.count)
    images = np.stack([to_square(image, side, Fit.SQUASH)[0] for image in images])
    sets, teachers = attacked(images, keys, options.teacher)
    judges = load(options.clean, pick_device()), teachers
    opened = open_for(Settings(engine=str(options.work / name / "model"), batch=options.batch))
    points, rows = curve(opened.engine, judges, sets, keys, labels, options)
    save_grid(options.work / name / f"quality-{side}.png", sets, rows, keys)
    before = undefended(*judges, sets, labels)
    attacks = [manifest.attack for _, manifest in teachers]
    return {
        "engine": opened.engine.identity,
        "undefended": before,
        "points": points,
        "choice": choice(points, attacks),
    }


def choice(points: Iterable[dict[str, Any]], attacks: list[str]) -> dict[str, Any] | None:
    """The point at which the fewest triggers survive, among those that keep enough of the labels; None: none does."""
    enough = [point for point in points if point["label_preservation"]["preservation"] >= KEPT_LABELS]
    return min(enough, key=lambda point: sum(point[name]["triggered"]["value"] for name in attacks), default=None)


if __name__ == "__main__":
    sys.exit(main())
