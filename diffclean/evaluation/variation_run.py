"""Measures what a variation run did to its data set: label preservation and, if it was poisoned, trigger survival."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from diffclean.attacks.base import Form
from diffclean.attacks.manifest import MANIFEST_FILE, read_poison_manifest
from diffclean.data.registry import is_there
from diffclean.data.run_record import source_of
from diffclean.errors import DiffcleanError
from diffclean.evaluation import metrics
from diffclean.evaluation.evaluate import classes_by, opened, path_of
from diffclean.evaluation.metrics import Rate
from diffclean.evaluation.variations import LabelPreservation, TriggerSurvival, label_preservation, survival
from diffclean.progress import NoProgress, Progress
from diffclean.results import WHERE_MEASURED, table

if TYPE_CHECKING:
    from pandas import DataFrame

    from diffclean.classifiers.classifier_file import ClassifierFile


@dataclass(frozen=True)
class RunEvaluation:
    """The measurements of a variation run.

    Attributes:
        model: the file of the classifier.
        run: the output folder of `variate`.
        source: the data set that it was made from.
        images: the number of variations whose original exists.
        failed: the reason why an image is not counted, by key.
        label_preservation: measured on images without a trigger; None if there are none.
        attack: the name of the attack. This and the following are None if the source has no `poison.json`.
        attack_success_rate: the ASR of the classifier on the triggered images of the source.
        fired: whether the ASR is high enough for trigger survival to have a meaning.
        trigger_survival: measured against the untriggered images of the same run.
    """

    model: str
    run: str
    source: str
    images: int
    failed: dict[str, str]
    label_preservation: LabelPreservation | None = field(default=None, metadata=WHERE_MEASURED)
    attack: str | None = field(default=None, metadata=WHERE_MEASURED)
    attack_success_rate: Rate | None = field(default=None, metadata=WHERE_MEASURED)
    fired: bool | None = field(default=None, metadata=WHERE_MEASURED)
    trigger_survival: TriggerSurvival | None = field(default=None, metadata=WHERE_MEASURED)

    def to_pandas(self) -> DataFrame:
        """A table with a row for each rate: measure, of, value, low, high, hits, count. Needs pandas."""
        rows = []
        for measure in ("label_preservation", "attack_success_rate", "trigger_survival"):
            found = getattr(self, measure)
            parts = {"originals": found} if isinstance(found, Rate) else vars(found) if found else {}
            rows += [{"measure": measure, "of": of, **vars(r)} for of, r in parts.items() if isinstance(r, Rate)]
        return table(rows)


def evaluate_run(
    model: Path | ClassifierFile, run: Path, device: str | None = None, progress: Progress | None = None
) -> RunEvaluation:
    """Measure the output folder of `variate` with a classifier.

    For trigger survival, use the teacher, since it knows the trigger. For label preservation, a classifier that was
    trained on clean data is better; the teacher is close to one on images without a trigger.

    Args:
        model: as for `evaluate`.
        run: an output folder of `variate`; its source folder must still exist.
        device: a torch device; None stands for CUDA where it works, else the CPU.
        progress: is advanced for each image.

    Raises:
        DiffcleanError: the run is not complete, its source is gone, or a file cannot be read.
    """
    import torch

    from diffclean.classifiers.networks import pick_device
    from diffclean.datasets.pairs import paired
    from diffclean.datasets.samples import folder_samples, memory_limit
    from diffclean.datasets.variations import load_variations

    progress = progress or NoProgress()
    source = source_of(run)
    if not is_there(source):
        raise DiffcleanError(
            f"The source of {run}, {source}, is no longer there.", "Put it back: the variations are compared with it."
        )
    where = pick_device(device)
    classifier = opened(model, run, where)
    classes, memory = classifier.class_to_idx, memory_limit(None, 2)
    varied = load_variations(run, classes, classifier.size, labelled=False, memory=memory, progress=progress)
    original = folder_samples(source, classifier.size, classes, memory=memory, progress=progress)
    failed = dict(original.failed)
    original, varied = paired(original, varied, failed, source, run)
    guessed = classes_by(classifier, varied.pixels, where, progress)
    image_of = torch.arange(len(varied.keys)).repeat_interleave(varied.starts.diff()).numpy()
    before = classes_by(classifier, original.pixels, where, progress)[image_of]
    result = RunEvaluation(str(path_of(model)), str(run), str(source), len(guessed), failed)
    if not (source / MANIFEST_FILE).is_file():
        kept = label_preservation(guessed, before, original.labels.numpy()[image_of])
        return replace(result, label_preservation=kept)
    keys = [original.keys[number] for number in image_of]
    return _with_poison(result, source, keys, guessed, before, classes)


def _with_poison(
    result: RunEvaluation,
    source: Path,
    keys: list[str],
    guessed: NDArray[np.int64],
    before: NDArray[np.int64],
    classes: dict[str, int],
) -> RunEvaluation:
    """The measurements if it is known which images carry a trigger, and what their true classes are."""
    manifest = read_poison_manifest(source)
    rows = {row.output: row for row in manifest.images}
    if unknown := [key for key in keys if key not in rows]:
        raise DiffcleanError(
            f"{len(unknown)} images of {source} are not in its {MANIFEST_FILE}, such as {unknown[0]}.",
            "The folder was changed after it was poisoned. Poison the clean data again.",
        )
    images = [rows[key] for key in keys]
    true = np.array([classes[image.label] for image in images])
    targets = manifest.targets(classes)[true]
    triggered = np.array([image.poisoned or manifest.form is Form.TEST for image in images])
    clean = ~triggered & ~np.array([image.cover for image in images])

    def success(predictions: NDArray[np.int64], chosen: NDArray[np.bool_]) -> Rate:
        return metrics.attack_success_rate(predictions[chosen], true[chosen], targets[chosen])

    fired = success(before, triggered)
    return replace(
        result,
        attack=manifest.attack,
        attack_success_rate=fired,
        fired=not math.isnan(fired.value) and fired.value >= metrics.FIRED,
        trigger_survival=survival(success(guessed, triggered), success(guessed, clean)),
        label_preservation=label_preservation(guessed[clean], before[clean], true[clean]) if clean.any() else None,
    )
