"""Measure what an engine keeps and removes on images that it never saw: a curve over strength and steps.

    python benchmarks/micro_quality.py --images CIFAR_TEST --clean clean.pt \
        --teacher badnets.pt BADNETS_DATA/poison.json --teacher blended.pt BLENDED_DATA/poison.json

`--images` is a labelled folder. `clean.pt` is a classifier trained on clean data (label preservation); each teacher was
trained on the poisoned data set whose manifest stands beside it (trigger survival). Survival is also given minus the
rate at which variations of untriggered images land on the target class.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from record import write_result

from diffclean.attacks.manifest import PoisonManifest, read_poison_manifest, triggered
from diffclean.classifiers.checkpoints import load
from diffclean.classifiers.networks import pick_device
from diffclean.data.decode import decode
from diffclean.data.fit import Fit, OutputSize, from_square, to_square
from diffclean.data.folder import ImageFolder
from diffclean.data.pixels import Pixels
from diffclean.evaluation.metrics import attack_success_rate, clean_accuracy
from diffclean.evaluation.variations import label_preservation, predict_arrays, trigger_survival
from diffclean.families.seeds import image_seed
from diffclean.runtime.choose import Engine
from diffclean.variation.sampler import Sampler, SamplerSettings
from diffclean.variation.settings import Settings, open_for


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--clean", type=Path, required=True)
    parser.add_argument("--teacher", nargs=2, type=Path, action="append", required=True, metavar=("MODEL", "MANIFEST"))
    parser.add_argument("--engine", default="micro")
    parser.add_argument("--count", type=int, default=500, help="the number of images, equal for each class")
    parser.add_argument("--strengths", type=float, nargs="+", default=[0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0])
    parser.add_argument("--steps", type=int, nargs="+", default=[8])
    parser.add_argument("--scheduler", default="ddim")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=50)
    parser.add_argument("--grid", type=Path, help="where to save a picture of samples (it holds the data's images)")
    parser.add_argument("--name", default="micro_quality", help="the name of the result file")
    options = parser.parse_args()
    keys, images, labels = balanced(options.images, options.count)
    sets, teachers = attacked(images, keys, options.teacher)
    clean = load(options.clean, pick_device())
    before = undefended(clean, teachers, sets, labels)
    opened = open_for(Settings(engine=options.engine, batch=options.batch))
    points, rows = curve(opened.engine, (clean, teachers), sets, keys, labels, options)
    if options.grid:
        save_grid(options.grid, sets, rows, keys)
    figures = {
        "engine": opened.engine.identity,
        "scheduler": options.scheduler,
        "images": len(images),
        "seed": options.seed,
        "undefended": before,
        "points": points,
    }
    write_result(options.name, figures, f"{len(images)} CIFAR-10 test images (JPEG-coded copies), 32 px")


def balanced(folder: Path, count: int) -> tuple[list[str], Pixels, NDArray[np.int64]]:
    """Keys, (N, H, W, 3) uint8 and class numbers of the first images of each class."""
    source = ImageFolder(folder)
    classes = source.class_to_idx
    left = dict.fromkeys(classes, count // len(classes))
    keys, images, labels = [], [], []
    for item in source.items():
        if left[item.label]:
            left[item.label] -= 1
            keys.append(item.key)
            images.append(decode(source.read(item)))
            labels.append(classes[item.label])
    return keys, np.stack(images), np.array(labels)


def attacked(
    images: Pixels, keys: list[str], suspects: list[tuple[Path, Path]]
) -> tuple[dict[str, Pixels], list[tuple[Any, PoisonManifest]]]:
    """The images as they are ("clean") and with each attack's trigger; and the teachers, with their manifests."""
    sets, teachers = {"clean": images}, []
    for model, manifest_path in suspects:
        manifest = read_poison_manifest(manifest_path)
        sets[manifest.attack] = np.stack([triggered(i, k, manifest) for i, k in zip(images, keys, strict=True)])
        teachers.append((load(model, pick_device()), manifest))
    return sets, teachers


def curve(
    engine: Engine,
    judges: tuple[Any, list[tuple[Any, PoisonManifest]]],
    sets: dict[str, Pixels],
    keys: list[str],
    labels: Any,
    options: argparse.Namespace,
) -> tuple[list[dict[str, Any]], list[dict[str, Pixels]]]:
    """Figures and variations at each of `options.steps` and `options.strengths`."""
    points, rows = [], []
    for steps in options.steps:
        for strength in options.strengths:
            sampler = Sampler(engine, SamplerSettings(steps, strength, 1.0, options.scheduler))
            varied = {name: varied_images(sampler, keys, each, options) for name, each in sets.items()}
            point = {"steps": steps, "strength": strength, **measured(*judges, sets, varied, labels)}
            points.append(point)
            print({k: round(v, 4) for k, v in summary(point).items()}, flush=True)
            rows.append(varied)
    return points, rows


def undefended(clean: Any, teachers: list[tuple[Any, PoisonManifest]], sets: dict[str, Pixels], labels: Any) -> Any:
    """Accuracy of the clean classifier; accuracy and attack success of each teacher, before any defence."""
    found: dict[str, Any] = {"clean_accuracy": clean_accuracy(predict_arrays(clean, sets["clean"]), labels).value}
    for teacher, manifest in teachers:
        target = manifest.targets(manifest.class_to_idx)[labels]
        attacked = predict_arrays(teacher, sets[manifest.attack])
        found[manifest.attack] = {
            "teacher_clean_accuracy": clean_accuracy(predict_arrays(teacher, sets["clean"]), labels).value,
            "teacher_attack_success": asdict(attack_success_rate(attacked, labels, target)),
            "target": manifest.target,
            "parameters": {k: v for k, v in manifest.parameters.items() if len(str(v)) < 100},
        }
    return found


def varied_images(sampler: Sampler, keys: list[str], images: Pixels, options: argparse.Namespace) -> Pixels:
    """One variation of each image, at its own size, as `variate` makes it."""
    results = []
    for first in range(0, len(images), options.batch):
        part = images[first : first + options.batch]
        fitted = [to_square(image, sampler.image_size, Fit.SQUASH) for image in part]
        squares = np.stack([square for square, _ in fitted])
        padding = options.batch - len(part)
        squares = np.pad(squares, ((0, padding), (0, 0), (0, 0), (0, 0)))
        seeds = [image_seed(options.seed, key, 0) for key in keys[first : first + options.batch]] + [0] * padding
        own = [placed.own(sampler.image_size) for _, placed in fitted] + [(1.0, 1.0)] * padding
        made = sampler.generate(torch.from_numpy(squares), seeds, own)[0].numpy()
        results += [from_square(m, placed, OutputSize()) for m, (_, placed) in zip(made, fitted, strict=False)]
    return np.stack(results)


def measured(
    clean: Any,
    teachers: list[tuple[Any, PoisonManifest]],
    sets: dict[str, Pixels],
    varied: dict[str, Pixels],
    labels: Any,
) -> dict[str, Any]:
    """Label preservation, and survival of each trigger."""
    originals, variations = predict_arrays(clean, sets["clean"]), predict_arrays(clean, varied["clean"])
    point: dict[str, Any] = {"label_preservation": asdict(label_preservation(variations, originals, labels))}
    for teacher, manifest in teachers:
        target = manifest.targets(manifest.class_to_idx)[labels]
        of_triggered = predict_arrays(teacher, varied[manifest.attack])
        of_clean = predict_arrays(teacher, varied["clean"])
        point[manifest.attack] = asdict(trigger_survival(of_triggered, of_clean, labels, target))
    return point


def summary(point: dict[str, Any]) -> dict[str, float]:
    """One line for people."""
    short = {"steps": point["steps"], "strength": point["strength"]}
    short["label_preservation"] = point["label_preservation"]["preservation"]
    for name, value in point.items():
        if isinstance(value, dict) and "survival" in value:
            short[f"{name} triggered"] = value["triggered"]["value"]
            short[f"{name} survival"] = value["survival"]
    return short


def save_grid(path: Path, sets: dict[str, Pixels], rows: list[dict[str, Pixels]], keys: list[str]) -> None:
    """Originals on top, then a row a setting; clean images on the left, triggered ones to the right."""
    picks = list(range(0, len(keys), max(1, len(keys) // 10)))[:10]
    lines = [np.concatenate([each[i] for each in group.values() for i in picks], axis=1) for group in [sets, *rows]]
    grid = Image.fromarray(np.concatenate(lines, axis=0))
    grid.resize((grid.width * 2, grid.height * 2), Image.Resampling.NEAREST).save(path)


if __name__ == "__main__":
    main()
