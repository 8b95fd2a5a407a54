"""Measures a classifier file on a test set, clean and triggered."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from diffclean.attacks.manifest import MANIFEST_FILE, PoisonManifest, read_poison_manifest, triggered
from diffclean.errors import UsageError
from diffclean.evaluation import metrics
from diffclean.evaluation.metrics import Rate
from diffclean.progress import NoProgress, Progress
from diffclean.results import WHERE_MEASURED, table

if TYPE_CHECKING:
    import torch
    from pandas import DataFrame

    from diffclean.classifiers.classifier_file import ClassifierFile
    from diffclean.classifiers.loading import LoadedClassifier
    from diffclean.datasets.pixels import ImageSet

_BATCH = 512
_RATES = ("clean_accuracy", "attack_success_rate", "robust_accuracy", "benign_landing")


@dataclass(frozen=True)
class Undefended:
    """The measurements of the classifier before the defence, on the same test set.

    Attributes:
        model: its file.
        clean_accuracy: CA.
        attack_success_rate: ASR.
        robust_accuracy: RA.
        benign_landing: the share of untriggered images of other classes that are predicted as the target class.
    """

    model: str
    clean_accuracy: Rate
    attack_success_rate: Rate
    robust_accuracy: Rate
    benign_landing: Rate | None = None


@dataclass(frozen=True)
class Evaluation:
    """The measurements of a classifier. Those that need a poison manifest are None without one.

    Attributes:
        model: the file of the classifier.
        data: the test set.
        clean_accuracy: CA.
        images: the number of images of the test set that could be read.
        failed: the reason why an image could not be read, by key.
        attack_success_rate: ASR.
        robust_accuracy: RA.
        attack: the name of the attack.
        labels: how the attack labelled the images that it poisoned in training.
        target: the target class; empty for all-to-all.
        undefended: the same rates of the classifier before the defence, if it was given.
        defense_effectiveness: DER, if that classifier was given; NaN if one of the rates counts no image.
        fired: whether the attack works (an ASR of 80 % or more) on the undefended classifier. If that was not given,
            whether it works on this one: False then does not tell a defence from an attack that never worked.
        benign_landing: the share of *untriggered* images of other classes that are predicted as the target class. An
            ASR can hardly be lower than this.
    """

    model: str
    data: str
    clean_accuracy: Rate
    images: int
    failed: dict[str, str]
    attack_success_rate: Rate | None = field(default=None, metadata=WHERE_MEASURED)
    robust_accuracy: Rate | None = field(default=None, metadata=WHERE_MEASURED)
    attack: str | None = field(default=None, metadata=WHERE_MEASURED)
    labels: str | None = field(default=None, metadata=WHERE_MEASURED)
    target: str | None = field(default=None, metadata=WHERE_MEASURED)
    undefended: Undefended | None = field(default=None, metadata=WHERE_MEASURED)
    defense_effectiveness: float | None = field(default=None, metadata=WHERE_MEASURED)
    fired: bool | None = field(default=None, metadata=WHERE_MEASURED)
    benign_landing: Rate | None = field(default=None, metadata=WHERE_MEASURED)

    def to_pandas(self) -> DataFrame:
        """A table with a row for each rate: model, measure, value, low, high, hits, count. Needs pandas."""
        models: list[Evaluation | Undefended] = [self, *([self.undefended] if self.undefended else [])]
        rates = [(each.model, name, getattr(each, name)) for each in models for name in _RATES]
        return table({"model": model, "measure": name, **vars(rate)} for model, name, rate in rates if rate)


def evaluate(
    model: Path | ClassifierFile,
    data: Path,
    poison_manifest: Path | None = None,
    undefended: Path | ClassifierFile | None = None,
    device: str | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Measure the CA of a classifier; with a poison manifest also ASR and RA, and with the undefended one also DER.

    The trigger is put on each image at its own size before it is resized to the classifier's size, as in training.
    Triggered images are made when they are needed, and are not kept.

    Args:
        model: a classifier file, or a `ClassifierFile` if the file does not state everything.
        data: a clean test set, root/<class>/**/image, with the classes of the classifier.
        poison_manifest: the manifest of the data set that the attack was trained on.
        undefended: the classifier before the defence.
        device: a torch device; None stands for CUDA where it works, else the CPU.
        progress: is advanced for each image.

    Raises:
        UsageError: `data` is triggered already, the classes do not match, or `undefended` is given without a manifest.
        DiffcleanError: a file cannot be read.
    """
    from diffclean.classifiers.networks import pick_device

    if undefended is not None and poison_manifest is None:
        raise UsageError(
            "`undefended` was given without `poison`, but DER can be measured only with the attack.",
            "Add: `poison` poison.json",
        )
    if (data / MANIFEST_FILE).exists():
        raise UsageError(f"{data} is poisoned already ({MANIFEST_FILE} is there).", "Give the clean test set.")
    progress = progress or NoProgress()
    manifest = read_poison_manifest(poison_manifest) if poison_manifest is not None else None
    where = pick_device(device)
    result = _measure(model, data, manifest, where, progress)
    if manifest is None:
        return result
    before = result
    if undefended is not None:
        before = _measure(undefended, data, manifest, where, progress)
        result = replace(
            result, undefended=_as_undefended(before), defense_effectiveness=_effectiveness(before, result)
        )
    assert before.attack_success_rate is not None
    asr = before.attack_success_rate.value
    return replace(result, fired=not math.isnan(asr) and asr >= metrics.FIRED)


def _as_undefended(before: Evaluation) -> Undefended:
    return Undefended(before.model, *(getattr(before, name) for name in _RATES))


def _effectiveness(before: Evaluation, after: Evaluation) -> float:
    assert before.attack_success_rate is not None
    assert after.attack_success_rate is not None
    success = before.attack_success_rate.value, after.attack_success_rate.value
    return metrics.defense_effectiveness(*success, before.clean_accuracy.value, after.clean_accuracy.value)


def _measure(
    model: Path | ClassifierFile,
    data: Path,
    manifest: PoisonManifest | None,
    device: torch.device,
    progress: Progress,
) -> Evaluation:
    import torch

    from diffclean.classifiers.class_order import check_agreement
    from diffclean.datasets.samples import edited, folder_samples, memory_limit

    classifier = opened(model, data, device)
    memory = memory_limit(None, 1)
    clean = folder_samples(data, classifier.size, classifier.class_to_idx, memory=memory, progress=progress)
    labels = clean.labels.numpy()
    guessed = classes_by(classifier, clean.pixels, device, progress)
    told = not isinstance(model, Path) and model.classes is not None  # by the user, whose order may be wrong
    if (classifier.classes_assumed or told) and len(labels):
        answers, order = torch.from_numpy(guessed), classifier.class_to_idx
        check_agreement(classifier.name, answers, clean.labels, order, str(data), classifier.role)
    right = metrics.clean_accuracy(guessed, labels)
    result = Evaluation(str(path_of(model)), str(data), right, len(clean.keys), clean.failed)
    if manifest is None:
        return result
    targets = manifest.targets(classifier.class_to_idx)[labels]
    landing = metrics.attack_success_rate(guessed, labels, targets)

    def with_trigger(key: str, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return triggered(image, key, manifest)

    guessed = classes_by(classifier, edited(clean, data, with_trigger), device, progress)
    return replace(
        result,
        attack_success_rate=metrics.attack_success_rate(guessed, labels, targets),
        robust_accuracy=metrics.robust_accuracy(guessed, labels, targets),
        benign_landing=landing,
        attack=manifest.attack,
        labels=str(manifest.labels),
        target=manifest.target,
    )


def path_of(model: Path | ClassifierFile) -> Path:
    """The file of a classifier."""
    return model if isinstance(model, Path) else model.path


def opened(model: Path | ClassifierFile, data: Path, device: torch.device) -> LoadedClassifier:
    """Open a classifier from any source for images of `data`, as `distill` opens a teacher."""
    from diffclean.classifiers import loading
    from diffclean.classifiers.classifier_file import ClassifierFile
    from diffclean.datasets.variations import classes_of

    config = ClassifierFile(model) if isinstance(model, Path) else model
    return loading.load(config, classes_of(data), device)


def classes_by(
    classifier: LoadedClassifier, pixels: ImageSet, device: torch.device, progress: Progress
) -> NDArray[np.int64]:
    """(N,) the predicted class of each of N images, computed in batches."""
    import torch

    from diffclean.classifiers.loading import check_answers
    from diffclean.classifiers.networks import unit_floats

    progress.begin("Classifying", len(pixels))
    answers = []
    for batch in pixels.batches(torch.arange(len(pixels)).split(_BATCH)):
        logits = classifier.logits(unit_floats(batch.to(device))).cpu()
        check_answers(logits, classifier.name, classifier.role)
        answers.append(logits.argmax(1))
        progress.advance(len(batch))
    progress.end()
    classes: NDArray[np.int64] = torch.cat(answers).numpy()
    return classes
