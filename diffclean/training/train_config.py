"""What a training run is asked to do; no torch here, so that a dry run is quick."""

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
    """All that decides what comes out of `train`.

    Attributes:
        data: labelled image folder, root/<class>/**/image; or an output folder of `variate`, of which each epoch shows
            one variation an image.
        out: `.pt` or `.safetensors`; the log is written beside it as `.jsonl`.
        without: a list of suspects (`suspects.json`), which are left out; None: nothing is.
        test: labelled image folder that is measured after the last epoch.
        size: side in px that images are resized to; None: as they are (all must then have one size).
        arch: as in `networks.build`.
        label_smoothing: share of the target spread over all classes.
        onnx: where the classifier is written as ONNX too.
        label_from: where labels are, see `data.labels`; None: the first folder.
        overwrite: replace `out` where it exists.
        loop: everything else.
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


def check(config: TrainConfig) -> None:
    """Refuse what cannot work, before any work.

    Raises:
        UsageError: with every mistake in it.
        DiffcleanError: the output exists.
    """
    wrong = config.loop.problems()
    if not 0 <= config.label_smoothing < 1:
        wrong.append(f"`label_smoothing` must be in [0, 1), not {config.label_smoothing}")
    check_size(wrong, config.size)
    check_output(config.out, config.onnx, config.overwrite, wrong)


def check_output(out: Path, onnx: Path | None, overwrite: bool, wrong: list[str]) -> None:
    """Refuse what cannot be written, together with everything else that is wrong.

    Raises:
        UsageError: wrong names, or anything in `wrong`.
        DiffcleanError: an output exists, cannot be written, or its log would be written over a file of somebody's.
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
            raise DiffcleanError(f"{path} is a folder.", "Name a file.")
        if path.exists() and not overwrite:
            raise DiffcleanError(f"{path} exists.", "Name another file, or add `overwrite`.")
        above = next(folder for folder in path.absolute().parents if os.path.lexists(folder))
        if not above.is_dir():
            raise DiffcleanError(f"{path} cannot be written: {above} is no folder.", "Name another file.")
    log = out.with_suffix(".jsonl")
    if log.exists() and not is_training_log(log):
        raise DiffcleanError(
            f"The log of this training would be written over {log}, which is something else.", "Name another `out`."
        )
