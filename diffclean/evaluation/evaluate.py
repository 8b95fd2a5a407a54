"""Measure a classifier file on a test set, clean and triggered."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from diffclean.attacks.manifest import MANIFEST_FILE, PoisonManifest, read_manifest, triggered
from diffclean.errors import UsageError
from diffclean.evaluation import metrics
from diffclean.progress import NoProgress, Progress

if TYPE_CHECKING:
    import torch

    from diffclean.classifiers.teacher_config import TeacherConfig
    from diffclean.classifiers.teachers import Teacher
    from diffclean.datasets.labelled import LabelledImages

_BATCH = 512


def evaluate(
    model: Path | TeacherConfig,
    data: Path,
    poison_manifest: Path | None = None,
    undefended: Path | TeacherConfig | None = None,
    device: str | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """CA of a classifier; with a poison manifest ASR and RA; with the undefended model too, DER.

    The trigger is put on each image at its own size, before it is resized to the classifier's: as it was in training.

    Args:
        model: a classifier file; a `TeacherConfig` where the file does not say all about itself.
        data: a clean test set, root/<class>/**/image, with the model's classes.
        poison_manifest: of the data set that the attack was trained on.
        undefended: the classifier before the defence.
        device: a torch device; None: CUDA where it works, else the CPU.
        progress: told of each image.

    Returns:
        What JSON can say. `clean_accuracy`, `attack_success_rate`, `robust_accuracy`: value, low, high, hits, count
        (see `metrics.Rate`). `fired`: whether the attack works on the undefended model (`undefended`, or `model` where
        that is not given). `undefended`: the same rates. `defense_effectiveness`: a number.

    Raises:
        UsageError: `data` is triggered already; the classes do not match; `undefended` without a manifest.
        DiffcleanError: a file cannot be read.
    """
    from diffclean.classifiers.networks import pick_device

    if undefended is not None and poison_manifest is None:
        raise UsageError("DER needs the attack: --undefended was given without --poison.", "Add: --poison poison.json")
    if (data / MANIFEST_FILE).exists():
        raise UsageError(f"{data} is poisoned already ({MANIFEST_FILE} is there).", "Give the clean test set.")
    progress = progress or NoProgress()
    manifest = read_manifest(poison_manifest) if poison_manifest is not None else None
    where = pick_device(device)
    result: dict[str, Any] = {"model": str(path_of(model)), "data": str(data)}
    result |= _measure(model, data, manifest, where, progress)
    if manifest is None:
        return result
    result["attack"] = manifest.attack
    result["labels"] = str(manifest.labels)
    result["target"] = manifest.target
    before = result
    if undefended is not None:
        before = _measure(undefended, data, manifest, where, progress)
        names = ("clean_accuracy", "attack_success_rate", "robust_accuracy")
        result["undefended"] = {"model": str(path_of(undefended)), **{name: before[name] for name in names}}
        result["defense_effectiveness"] = metrics.defense_effectiveness(
            *(r["attack_success_rate"]["value"] for r in (before, result)),
            *(r["clean_accuracy"]["value"] for r in (before, result)),
        )
    asr = before["attack_success_rate"]["value"]
    result["fired"] = not math.isnan(asr) and asr >= metrics.FIRED
    return result


def _measure(
    model: Path | TeacherConfig,
    data: Path,
    manifest: PoisonManifest | None,
    device: torch.device,
    progress: Progress,
) -> dict[str, Any]:
    import torch

    from diffclean.classifiers.class_order import check_agreement
    from diffclean.datasets import labelled

    classifier = opened(model, data, device)
    clean = labelled.load(data, classifier.size, classifier.class_to_idx, progress=progress)
    guessed, labels = classes_by(classifier, clean, device), clean.labels.numpy()
    if classifier.classes_assumed and len(labels):
        check_agreement(classifier.name, torch.from_numpy(guessed), clean.labels, classifier.class_to_idx, str(data))
    result: dict[str, Any] = {
        "clean_accuracy": asdict(metrics.clean_accuracy(guessed, labels)),
        "images": len(clean.keys),
        "failed": clean.failed,
    }
    if manifest is not None:
        targets = manifest.targets(classifier.class_to_idx)

        def with_trigger(key: str, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
            return triggered(image, key, manifest)

        bad = labelled.load(data, classifier.size, classifier.class_to_idx, with_trigger, progress)
        guessed, labels = classes_by(classifier, bad, device), bad.labels.numpy()
        result["attack_success_rate"] = asdict(metrics.attack_success_rate(guessed, labels, targets[labels]))
        result["robust_accuracy"] = asdict(metrics.robust_accuracy(guessed, labels, targets[labels]))
    return result


def path_of(model: Path | TeacherConfig) -> Path:
    """Its file."""
    return model if isinstance(model, Path) else model.path


def opened(model: Path | TeacherConfig, data: Path, device: torch.device) -> Teacher:
    """A classifier of anybody's, for images of `data`: as `distill` reads a teacher."""
    from diffclean.classifiers import teachers
    from diffclean.classifiers.teacher_config import TeacherConfig
    from diffclean.datasets.variations import classes_of

    config = TeacherConfig(model) if isinstance(model, Path) else model
    return teachers.load(config, classes_of(data), device)


def classes_by(classifier: Teacher, data: LabelledImages, device: torch.device) -> NDArray[np.int64]:
    """(N,) the predicted class of each image."""
    import torch

    from diffclean.classifiers.networks import unit_floats
    from diffclean.classifiers.teachers import check_answers

    logits = torch.cat([classifier.logits(unit_floats(b.to(device))).cpu() for b in data.images.split(_BATCH)])
    check_answers(logits, classifier.name)
    classes: NDArray[np.int64] = logits.argmax(1).numpy()
    return classes
