"""What a distillation is asked to do; no torch here, so that a dry run is quick."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

from diffclean.classifiers.checks import check_size
from diffclean.classifiers.classifier_file import ClassifierFile
from diffclean.errors import UsageError
from diffclean.training.loop_config import LoopConfig
from diffclean.training.train_config import check_output

TARGETS = ("sampled", "averaged")


@dataclass(frozen=True)
class DistillConfig:
    """All that decides what comes out of `distill`.

    Attributes:
        teacher: see `ClassifierFile`.
        data: an output folder of `variate`, or any labelled image folder.
        out: `.pt` or `.safetensors`; the log is written beside it as `.jsonl`.
        student: architecture, as in `networks.build`; None: the teacher's where it is known.
        temperature: softens teacher and student alike (T).
        alpha: weight of the teacher's targets; the labels have the rest. At 1 labels teach nothing and may be missing;
            those that are there are only used to look whether the teacher fits the data.
        paper_loss: the form of the code that was released with the paper, see `distill_loss`.
        targets: of K variations an image, one is shown each epoch. sampled: the target is the teacher's answer to that
            one. averaged: it is the mean of its answers to all K.
        without: a list of suspects (`suspects.json`), which are left out; None: nothing is.
        test: labelled image folder that is measured after the last epoch.
        size: side in px that images are resized to; None: the teacher's where its file tells it, else they stay as they
            are (all must then have one size).
        onnx: where the student is written as ONNX too.
        overwrite: replace `out` where it exists.
        loop: everything else.
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


def check(config: DistillConfig) -> None:
    """Refuse what cannot work, before any work.

    Raises:
        UsageError: with every mistake in it.
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
        wrong.append(
            "`paper_loss` changes the labels' part of the loss, of which `alpha` 1 leaves nothing (the paper's is 0.5)"
        )
    check_size(wrong, config.size)
    if any(path.resolve() == config.teacher.path.resolve() for path in (config.out, config.onnx) if path):
        raise UsageError(
            f"The student would be written over the teacher, {config.teacher.path}.", "Try: `out` student.pt"
        )
    check_output(config.out, config.onnx, config.overwrite, wrong)


def default_out(teacher: Path) -> Path:
    """Where a student goes when nobody says: `t.pt` -> `t-student.pt`, in the current directory."""
    return Path(f"{teacher.stem}-student.pt")
