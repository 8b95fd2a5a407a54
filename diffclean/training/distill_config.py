"""The configuration of a distillation. This module does not import torch, so that a dry run is fast."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

from diffclean.classifiers.checks import check_size
from diffclean.classifiers.classifier_file import ClassifierFile
from diffclean.errors import UsageError
from diffclean.training.loop_config import LoopConfig
from diffclean.training.train_config import TrainConfig, check_output, check_relabelling

TARGETS = ("sampled", "averaged")


@dataclass(frozen=True)
class DistillConfig:
    """Everything that determines the result of `distill`.

    Attributes:
        teacher: the teacher, see `ClassifierFile`.
        data: an output folder of `variate`, or any labelled image folder.
        out: the file to write, `.pt` or `.safetensors`; the log is written beside it as `.jsonl`.
        student: the architecture, as in `networks.build`; None stands for the teacher's if it is known.
        temperature: T, by which the logits of teacher and student are divided.
        alpha: the weight of the teacher's targets; the labels have the remaining weight. At 1 labels are not used and
            may be missing; if they exist, they only serve to check that the teacher fits the data.
        paper_loss: whether the loss has the form of the paper's released code, see `distill_loss`.
        targets: each epoch shows one of the K variations of an image. With "sampled" the target is the teacher's answer
            to that one, with "averaged" the mean of its answers to all K.
        without: a list of suspects (`suspects.json`), which are left out; None leaves nothing out.
        test: a labelled image folder that is measured after the last epoch.
        size: the side in pixels of the squares that images are resized to; None stands for the teacher's size if its
            file states it, else for the size of the images (which must all have the same).
        onnx: a file that the student is also written to, as ONNX.
        overwrite: whether `out` is replaced if it exists.
        loop: the settings of the training loop.
        relabel: whether the images on the list stay in training, with the labels that the teacher gives them.
        relabel_confidence: as `confidence` of `relabel.Relabelling`.
        keep_confirmed: as in `relabel.Relabelling`.
    """

    teacher: ClassifierFile
    data: Path
    out: Path
    student: str | None = None
    temperature: float = 10.0
    alpha: float = 1.0
    paper_loss: bool = False
    targets: str = "sampled"
    without: Path | None = None
    test: Path | None = None
    size: int | None = None
    onnx: Path | None = None
    overwrite: bool = False
    loop: LoopConfig = field(default_factory=LoopConfig)
    relabel: bool = False
    relabel_confidence: float = TrainConfig.relabel_confidence
    keep_confirmed: bool = False


def check(config: DistillConfig) -> None:
    """Refuse an invalid configuration before any work.

    Raises:
        UsageError: the configuration has mistakes; the message lists all of them.
        DiffcleanError: the output exists.
    """
    wrong = config.loop.problems() + config.teacher.problems()
    if not 0 < config.temperature < math.inf:
        wrong.append(f"`temperature` must be above 0, not {config.temperature}")
    if not 0 <= config.alpha <= 1:
        wrong.append(f"`alpha` must be in [0, 1], not {config.alpha}")
    if config.targets not in TARGETS:
        wrong.append(f"`targets` must be {' or '.join(TARGETS)}, not {config.targets}")
    if config.paper_loss and config.alpha == 1:
        wrong.append("`paper_loss` changes the label loss, which has no weight at `alpha` 1 (the paper uses 0.5)")
    check_size(wrong, config.size)
    check_relabelling(config.relabel, config.without, config.relabel_confidence, config.keep_confirmed, wrong)
    if any(path.resolve() == config.teacher.path.resolve() for path in (config.out, config.onnx) if path):
        raise UsageError(
            f"The student would be written over the teacher, {config.teacher.path}.",
            "Give another file, for example: `out` student.pt",
        )
    check_output(config.out, config.onnx, config.overwrite, wrong)


def default_out(teacher: Path) -> Path:
    """The default file of a student: `t.pt` -> `t-student.pt`, in the current directory."""
    return Path(f"{teacher.stem}-student.pt")
