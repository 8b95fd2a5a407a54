"""What a variation run did to its data set: label preservation, and where it was poisoned by us, trigger survival."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from diffclean.attacks.base import Form
from diffclean.attacks.manifest import MANIFEST_FILE, read_manifest
from diffclean.data.manifest import Status, latest
from diffclean.data.manifest import read_manifest as read_rows
from diffclean.data.run_record import source_of
from diffclean.errors import DiffcleanError
from diffclean.evaluation import metrics
from diffclean.evaluation.evaluate import classes_by, opened, path_of
from diffclean.evaluation.variations import label_preservation, survival
from diffclean.progress import NoProgress, Progress

if TYPE_CHECKING:
    from diffclean.classifiers.teacher_config import TeacherConfig


def evaluate_run(
    model: Path | TeacherConfig, run: Path, device: str | None = None, progress: Progress | None = None
) -> dict[str, Any]:
    """Measure the output folder of `variate` with a classifier.

    The classifier is the teacher for trigger survival, since it knows the trigger. For label preservation a classifier
    that was trained on clean data is the better judge; the teacher is close to one on images without a trigger.

    Args:
        model: as in `evaluate`.
        run: written by `variate`; its source folder must still be there.
        device: a torch device; None: CUDA where it works, else the CPU.
        progress: told of each image.

    Returns:
        What JSON can say. `label_preservation`: see `variations.label_preservation`, over images without a trigger.
        Where the source holds a `poison.json`: `attack_success_rate` of the classifier on its triggered images,
        `fired`, and `trigger_survival` (see `variations.survival`), measured against the run's own untriggered images.

    Raises:
        DiffcleanError: the run is not whole, its source is gone, or a file cannot be read.
    """
    from diffclean.classifiers.networks import pick_device
    from diffclean.datasets import labelled

    progress = progress or NoProgress()
    source = source_of(run)
    if not source.is_dir():
        raise DiffcleanError(f"The source of {run}, {source}, is no longer there.", "Put it back: it is compared with.")
    where = pick_device(device)
    classifier = opened(model, run, where)
    origins = {
        row.output: row.key for row in latest(read_rows(run / "manifest.parquet")).values() if row.status is Status.OK
    }
    varied = labelled.load(run, classifier.size, classifier.class_to_idx, progress=progress)
    original = labelled.load(source, classifier.size, classifier.class_to_idx, progress=progress)
    place = {key: index for index, key in enumerate(original.keys)}
    kept = [index for index, output in enumerate(varied.keys) if origins.get(output) in place]
    back = np.array([place[origins[varied.keys[index]]] for index in kept], dtype=np.int64)
    if not kept:
        raise DiffcleanError(f"No variation in {run} has its original in {source}.")
    guessed, before = classes_by(classifier, varied, where)[kept], classes_by(classifier, original, where)[back]
    keys, given = [original.keys[index] for index in back], original.labels.numpy()[back]
    result: dict[str, Any] = {"model": str(path_of(model)), "run": str(run), "source": str(source), "images": len(kept)}
    result["failed"] = {**varied.failed, **original.failed}
    if not (source / MANIFEST_FILE).is_file():
        return result | {"label_preservation": label_preservation(guessed, before, given)}
    return result | _with_poison(source, keys, guessed, before, classifier.class_to_idx)


def _with_poison(
    source: Path, keys: list[str], guessed: NDArray[np.int64], before: NDArray[np.int64], classes: dict[str, int]
) -> dict[str, Any]:
    """The same where it is known which images carry a trigger, and what their true class is."""
    manifest = read_manifest(source)
    rows = {row.output: row for row in manifest.images}
    if unknown := [key for key in keys if key not in rows]:
        raise DiffcleanError(
            f"{len(unknown)} images of {source} are not in its {MANIFEST_FILE}, such as {unknown[0]}.",
            "The folder was changed after it was poisoned; poison it anew.",
        )
    images = [rows[key] for key in keys]
    true = np.array([classes[image.label] for image in images])
    targets = manifest.targets(classes)[true]
    triggered = np.array([image.poisoned or manifest.form is Form.TEST for image in images])
    clean = ~triggered & ~np.array([image.cover for image in images])

    def success(predictions: NDArray[np.int64], chosen: NDArray[np.bool_]) -> metrics.Rate:
        return metrics.attack_success_rate(predictions[chosen], true[chosen], targets[chosen])

    fired = success(before, triggered)
    result: dict[str, Any] = {"attack": manifest.attack, "attack_success_rate": asdict(fired)}
    result["fired"] = not math.isnan(fired.value) and fired.value >= metrics.FIRED
    result["trigger_survival"] = survival(success(guessed, triggered), success(guessed, clean))
    if clean.any():
        result["label_preservation"] = label_preservation(guessed[clean], before[clean], true[clean])
    return result
