"""`diffclean.evaluate` and `diffclean.evaluate_variations`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from diffclean.api.common import AnyPath, Colour, classifier_file, data_path_of, following, path_of
from diffclean.classifiers.classifier_file import ClassifierFile
from diffclean.data.places import place_of
from diffclean.data.run_record import RUN_FILE
from diffclean.errors import UsageError
from diffclean.progress import Progress

if TYPE_CHECKING:
    from diffclean.evaluation.evaluate import Evaluation
    from diffclean.evaluation.variation_run import RunEvaluation


def evaluate(
    model: AnyPath,
    data: AnyPath,
    *,
    poison: AnyPath | None = None,
    undefended: AnyPath | None = None,
    classifier_arch: str | None = ClassifierFile.arch,
    classifier_classes: AnyPath | None = ClassifierFile.classes,
    classifier_mean: Colour | None = ClassifierFile.mean,
    classifier_std: Colour | None = ClassifierFile.std,
    classifier_size: int | None = ClassifierFile.size,
    device: str | None = None,
    progress: bool | Progress = True,
) -> Evaluation:
    """Measure the clean accuracy of a classifier, and with a poison manifest the success of the attack.

    The `classifier_` arguments state what the file of the classifier does not. If `undefended` is given, they describe
    that one.

    Args:
        model: a classifier that `train` or `distill` wrote, or a state dict or .onnx file from elsewhere.
        data: the test set, which has one folder of images for each class.
        poison: the poison manifest (poison.json) of the training set; adds attack success rate and robust accuracy.
        undefended: the classifier before the defence; adds the defence effectiveness rating (DER). Needs `poison`.
        device: "cpu", "cuda", or one GPU such as "cuda:1"; None stands for CUDA where it works, else the CPU.
        progress: whether a bar is drawn, or a `Progress` to report to.

    Raises:
        UsageError: `data` is triggered already or is a folder of variations, or the classes do not match.
        DiffcleanError: a file cannot be read.
    """
    about = {name: value for name, value in locals().items() if name.startswith("classifier_")}
    from diffclean.evaluation.evaluate import evaluate as work

    folder = data_path_of(data)
    if is_variations(folder):
        raise UsageError(
            f"{folder} is an output folder of variate, and not a test set.", "Call `evaluate_variations` with it."
        )
    before = classifier_file(undefended, about) if undefended is not None else None
    config = classifier_file(model, about)
    with following(progress) as shown:
        return work(config, folder, path_of(poison), before, device, shown)


def evaluate_variations(
    model: AnyPath,
    variations: AnyPath,
    *,
    classifier_arch: str | None = ClassifierFile.arch,
    classifier_classes: AnyPath | None = ClassifierFile.classes,
    classifier_mean: Colour | None = ClassifierFile.mean,
    classifier_std: Colour | None = ClassifierFile.std,
    classifier_size: int | None = ClassifierFile.size,
    device: str | None = None,
    progress: bool | Progress = True,
) -> RunEvaluation:
    """Measure label preservation and, if the source was poisoned by `poison`, trigger survival of variations.

    Args:
        model: the classifier to use, preferably the teacher. The `classifier_` arguments describe it as in `evaluate`.
        variations: an output folder of `variate`; the folder that it was made from must still exist.
        device: "cpu", "cuda", or one GPU such as "cuda:1"; None stands for CUDA where it works, else the CPU.
        progress: whether a bar is drawn, or a `Progress` to report to.

    Raises:
        DiffcleanError: the run is not finished, its source is gone, or a file cannot be read.
    """
    about = {name: value for name, value in locals().items() if name.startswith("classifier_")}
    from diffclean.evaluation.variation_run import evaluate_run

    with following(progress) as shown:
        return evaluate_run(classifier_file(model, about), path_of(variations), device, shown)


def is_variations(folder: Path) -> bool:
    """Whether a folder was written by `variate`."""
    return (place_of(folder) / RUN_FILE).is_file()
