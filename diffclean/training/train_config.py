"""The configuration of a training run. This module does not import torch, so that a dry run is fast."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from diffclean.classifiers.checks import check_name, check_size
from diffclean.errors import DiffcleanError, UsageError
from diffclean.training.log import is_training_log
from diffclean.training.loop_config import LoopConfig


@dataclass(frozen=True)
class TrainConfig:
    """Everything that determines the result of `train`.

    Attributes:
        data: a labelled image folder, root/<class>/**/image; or an output folder of `variate`, of which each epoch
            shows one variation of each image.
        out: the file to write, `.pt` or `.safetensors`; the log is written beside it as `.jsonl`.
        without: a list of suspects (`suspects.json`), which are left out; None leaves nothing out.
        test: a labelled image folder that is measured after the last epoch.
        size: the side in pixels of the squares that images are resized to; None keeps their size, which must then be
            the same for all.
        arch: the architecture, as in `networks.build`.
        label_smoothing: the share of the target that is spread over all classes.
        onnx: a file that the classifier is also written to, as ONNX.
        label_from: where the labels come from, see `data.labels`; None stands for the first folder.
        overwrite: whether `out` is replaced if it exists.
        loop: the settings of the training loop.
        relabel: a classifier that gives the images on the list new labels, so that they stay in training; None leaves
            them out.
        relabel_confidence: as `confidence` of `relabel.Relabelling`.
        keep_confirmed: as in `relabel.Relabelling`.
    """

    data: Path
    out: Path
    without: Path | None = None
    test: Path | None = None
    size: int | None = None
    arch: str = "resnet18-cifar"
    label_smoothing: float = 0.0
    onnx: Path | None = None
    overwrite: bool = False
    label_from: str | None = None
    loop: LoopConfig = field(default_factory=LoopConfig)
    relabel: Path | None = None
    relabel_confidence: float = 0.7
    keep_confirmed: bool = False


def check(config: TrainConfig) -> None:
    """Refuse an invalid configuration before any work.

    Raises:
        UsageError: the configuration has mistakes; the message lists all of them.
        DiffcleanError: the output exists.
    """
    wrong = config.loop.problems()
    if not 0 <= config.label_smoothing < 1:
        wrong.append(f"`label_smoothing` must be in [0, 1), not {config.label_smoothing}")
    check_size(wrong, config.size)
    relabel = config.relabel
    check_relabelling(relabel is not None, config.without, config.relabel_confidence, config.keep_confirmed, wrong)
    for path in (config.out, config.onnx):
        if path is not None and relabel is not None and path.resolve() == relabel.resolve():
            wrong.append(f"`relabel` {relabel} would be overwritten by the new classifier")
    check_output(config.out, config.onnx, config.overwrite, wrong)


def check_relabelling(
    relabel: bool, without: Path | None, confidence: float, keep_confirmed: bool, wrong: list[str]
) -> None:
    """Add to `wrong` what is wrong with the settings of `relabel`, as `train` and `distill` have them."""
    if relabel and without is None:
        wrong.append("`relabel` needs a list of the images that get new labels: `without` suspects.json")
    if keep_confirmed and not relabel:
        wrong.append("`keep_confirmed` is about images that get new labels, so it needs `relabel`")
    if not 0 <= confidence < 1:
        wrong.append(f"`relabel_confidence` must be in [0, 1), not {confidence}")


def check_output(out: Path, onnx: Path | None, overwrite: bool, wrong: list[str]) -> None:
    """Refuse outputs that cannot be written, together with all other mistakes.

    Raises:
        UsageError: a file name is wrong, or there is something in `wrong`.
        DiffcleanError: an output exists or cannot be written, or its log would be written over a file that is not a
            log.
    """
    check_name(out)
    if onnx is not None and onnx.suffix != ".onnx":
        wrong.append(f"`onnx` must be a .onnx file, not {onnx.name}")
    if wrong:
        raise UsageError("; ".join(wrong) + ".")
    for path in (out, onnx):
        if path is None:
            continue
        if path.is_dir():
            raise DiffcleanError(f"{path} is a folder, but the name of a file is expected.", "Name a file.")
        if path.exists() and not overwrite:
            raise DiffcleanError(f"{path} exists.", "Name another file, or add `overwrite`.")
        above = next(folder for folder in path.absolute().parents if os.path.lexists(folder))
        if not above.is_dir():
            raise DiffcleanError(f"{path} cannot be written: {above} is not a folder.", "Name another file.")
    log = out.with_suffix(".jsonl")
    if log.exists() and not is_training_log(log):
        raise DiffcleanError(
            f"The log of this training would be written over {log}, which is not a training log.",
            "Name another `out`.",
        )
