"""`diffclean.distill`."""

from __future__ import annotations

from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

from diffclean.api.common import AnyPath, Colour, classifier_file, following, path_of, with_paths
from diffclean.api.train import loop_config
from diffclean.classifiers.classifier_file import ClassifierFile
from diffclean.progress import Progress
from diffclean.training.distill_config import DistillConfig, default_out
from diffclean.training.loop_config import LoopConfig

if TYPE_CHECKING:
    from diffclean.training.run import TrainResult


def distill(
    teacher: AnyPath,
    data: AnyPath | None = None,
    out: AnyPath | None = None,
    *,
    student: str | None = DistillConfig.student,
    temperature: float = DistillConfig.temperature,
    alpha: float = DistillConfig.alpha,
    paper_loss: bool = DistillConfig.paper_loss,
    targets: str = DistillConfig.targets,
    teacher_arch: str | None = ClassifierFile.arch,
    teacher_classes: AnyPath | None = ClassifierFile.classes,
    teacher_mean: Colour | None = ClassifierFile.mean,
    teacher_std: Colour | None = ClassifierFile.std,
    teacher_size: int | None = ClassifierFile.size,
    epochs: int = LoopConfig.epochs,
    batch_size: int = LoopConfig.batch_size,
    optimizer: str = LoopConfig.optimizer,
    learning_rate: float | None = LoopConfig.learning_rate,
    weight_decay: float | None = LoopConfig.weight_decay,
    schedule: str = LoopConfig.schedule,
    warmup: float | None = LoopConfig.warmup,
    milestones: tuple[float, ...] = LoopConfig.milestones,
    ema: float = LoopConfig.ema,
    augment: bool = LoopConfig.augment,
    turn: float = LoopConfig.turn,
    zoom: float = LoopConfig.zoom,
    validation_share: float = LoopConfig.validation_share,
    patience: int | None = LoopConfig.patience,
    size: int | None = DistillConfig.size,
    test: AnyPath | None = DistillConfig.test,
    precision: str | None = LoopConfig.precision,
    compile: bool = LoopConfig.compile,
    device: str | None = LoopConfig.device,
    seed: int = LoopConfig.seed,
    save_every_s: float = LoopConfig.save_every_s,
    memory_gib: float | None = LoopConfig.memory_gib,
    tensorboard: bool = LoopConfig.tensorboard,
    without: AnyPath | None = DistillConfig.without,
    onnx: AnyPath | None = DistillConfig.onnx,
    overwrite: bool = DistillConfig.overwrite,
    progress: bool | Progress = True,
    stop: Event | None = None,
) -> TrainResult:
    """Train a student on variations alone, from the answers of a suspect teacher.

    A run that was stopped goes on when the same is called again. Arguments that are not described here are those of
    `train`.

    Args:
        teacher: a classifier of `train`; or a state dict (.pt, .pth, .safetensors) or .onnx of anybody's.
        data: a folder of `variate`, or any folder of images; None: the one `*-variations` in the current directory.
        out: the student's file: .pt or .safetensors; None: `<teacher>-student.pt` in the current directory.
        student: its architecture, as `arch` of `train`; None: the teacher's where it is known.
        temperature: softens both answers.
        alpha: weight of the teacher's answers; the labels have the rest, and at 1 none are needed.
        paper_loss: labels at the temperature too, as in the code that was released with the paper.
        targets: "sampled": the teacher's answer to the variation that is shown; "averaged": its mean over all
            variations of the image.
        teacher_arch: architecture of a state dict.
        teacher_classes: a file with the classes in the order of the teacher's logits; None: the data's order.
        teacher_mean: what the teacher subtracts from R, G, B in [0, 1]; None: timm's, or ImageNet's.
        teacher_std: what it divides by; None: as for the mean.
        teacher_size: side of its input in pixels; None: its own, or the data's.
        progress: whether a bar is drawn, or a `Progress` to be told.
        stop: set by someone who wants the run to end.

    Raises:
        UsageError: a setting makes no sense, or teacher and data do not go together.
        DiffcleanError: teacher or data cannot be used, or the output exists.
        Interrupted: `stop` was set; the same call goes on.
    """
    options = dict(locals())
    del options["progress"], options["stop"]
    from diffclean.training.distill import distill as work

    with following(progress) as shown:
        return work(distill_config(**options), shown, stop)


def distill_config(teacher: AnyPath, data: AnyPath | None, out: AnyPath | None, **options: Any) -> DistillConfig:
    """The configuration of a distillation, from the arguments of `distill`."""
    from diffclean.datasets.variations import find_variations

    config = classifier_file(teacher, options, "teacher")
    loop = loop_config(options)
    return DistillConfig(
        teacher=config,
        data=path_of(data) or find_variations(Path()),
        out=path_of(out) or default_out(config.path),
        loop=loop,
        **with_paths(options, "test", "without", "onnx"),
    )
