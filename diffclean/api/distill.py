"""`diffclean.distill`."""

from __future__ import annotations

from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

from diffclean.api.common import AnyPath, Colour, classifier_file, data_path_of, following, path_of, with_paths
from diffclean.api.train import loop_config
from diffclean.classifiers.classifier_file import ClassifierFile
from diffclean.progress import Progress
from diffclean.training.distill_config import DistillConfig, default_out
from diffclean.training.loop_config import LoopConfig
from diffclean.training.recipes import STANDARD, filled

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
    recipe: str = STANDARD,
    epochs: int | None = None,
    batch_size: int | None = None,
    optimizer: str | None = None,
    learning_rate: float | None = LoopConfig.learning_rate,
    weight_decay: float | None = LoopConfig.weight_decay,
    schedule: str | None = None,
    warmup: float | None = LoopConfig.warmup,
    milestones: tuple[float, ...] = LoopConfig.milestones,
    ema: float = LoopConfig.ema,
    augment: bool = LoopConfig.augment,
    flip: str | None = None,
    shift: float | None = None,
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
    relabel: bool = DistillConfig.relabel,
    relabel_confidence: float = DistillConfig.relabel_confidence,
    keep_confirmed: bool = DistillConfig.keep_confirmed,
    onnx: AnyPath | None = DistillConfig.onnx,
    overwrite: bool = DistillConfig.overwrite,
    progress: bool | Progress = True,
    stop: Event | None = None,
) -> TrainResult:
    """Train a student on variations alone, from the answers of a suspect teacher.

    To continue a run that was stopped, make the same call again. For arguments that are not described here, see
    `train`.

    Args:
        teacher: a classifier that `train` wrote, or a state dict (.pt, .pth, .safetensors) or an .onnx file from
            elsewhere.
        data: an output of `variate`, on disk or in a bucket, or any other data set; None stands for the only
            `*-variations` folder in the current directory.
        out: the file of the student, .pt or .safetensors; None stands for `<teacher>-student.pt` in the current
            directory.
        student: the architecture of the student, see `arch` of `train`; None stands for the teacher's if it is known,
            or for the recipe's.
        temperature: the temperature by which the logits of teacher and student are divided before the softmax.
        alpha: the weight of the teacher's answers in the loss. The labels have the remaining weight, so 1 needs no
            labels.
        paper_loss: whether the temperature is applied to the label loss as well, as in the released code of the paper.
        targets: "sampled" for the teacher's answer to the variation at hand, "averaged" for the mean of its answers to
            all variations of the image.
        teacher_arch: the architecture of the teacher, if its file is a state dict.
        teacher_classes: a file with the teacher's classes in the order of its logits; None stands for the order of the
            data.
        teacher_mean: the mean that the teacher subtracts from R, G, B in [0, 1]; None stands for timm's, or ImageNet's.
        teacher_std: the standard deviation by which it divides; None as for the mean.
        teacher_size: the side of the teacher's square input in pixels; None stands for the one in its file, else that
            of the images.
        relabel: whether the images on the list of `without` stay in training, with the labels that the teacher gives to
            their variations.
        progress: whether a bar is drawn, or a `Progress` to report to.
        stop: set this event to stop the run.

    Raises:
        UsageError: a setting is invalid, or the teacher and the data do not belong together.
        DiffcleanError: the teacher or the data cannot be used, or the output exists.
        Interrupted: `stop` was set; the same call continues.
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
    options = filled(options.pop("recipe", STANDARD), options)
    loop = loop_config(options)
    return DistillConfig(
        teacher=config,
        data=data_path_of(data) or find_variations(Path()),
        out=path_of(out) or default_out(config.path),
        loop=loop,
        test=data_path_of(options.pop("test", None)),
        **with_paths(options, "without", "onnx"),
    )
