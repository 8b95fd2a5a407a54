"""`diffclean.train`."""

from __future__ import annotations

from dataclasses import fields
from threading import Event
from typing import TYPE_CHECKING, Any

from diffclean.api.common import AnyPath, following, with_paths
from diffclean.progress import Progress
from diffclean.training.loop_config import LoopConfig
from diffclean.training.train_config import TrainConfig

if TYPE_CHECKING:
    from diffclean.training.run import TrainResult


def train(
    data: AnyPath,
    out: AnyPath,
    *,
    arch: str = TrainConfig.arch,
    label_smoothing: float = TrainConfig.label_smoothing,
    label_from: str | None = TrainConfig.label_from,
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
    size: int | None = TrainConfig.size,
    test: AnyPath | None = TrainConfig.test,
    precision: str | None = LoopConfig.precision,
    compile: bool = LoopConfig.compile,
    device: str | None = LoopConfig.device,
    seed: int = LoopConfig.seed,
    save_every_s: float = LoopConfig.save_every_s,
    memory_gib: float | None = LoopConfig.memory_gib,
    tensorboard: bool = LoopConfig.tensorboard,
    without: AnyPath | None = TrainConfig.without,
    onnx: AnyPath | None = TrainConfig.onnx,
    overwrite: bool = TrainConfig.overwrite,
    progress: bool | Progress = True,
    stop: Event | None = None,
) -> TrainResult:
    """Train a classifier on a folder with one folder of images a class. On suspect data, this is the teacher.

    A run that was stopped goes on when the same is called again.

    Args:
        data: the training set.
        out: the classifier's file: .pt or .safetensors. The log is written beside it as .jsonl.
        arch: resnet18-cifar, preact-resnet18, wrn-16-1, resnet9-cifar, resnet8-cifar, or any timm model.
        label_smoothing: share of the target that is spread over all classes.
        label_from: where labels are: "folder", "subfolder", or a table below `data`; None: the first folder.
        epochs: times that each image is seen.
        batch_size: images a step.
        optimizer: "sgd" or "adamw".
        learning_rate: at its peak; None: the optimizer's usual one.
        weight_decay: pull of the weights towards zero; None: the optimizer's usual one.
        schedule: of the learning rate: "cosine", "multi-step" or "constant".
        warmup: share of the run in which the rate rises; None: the schedule's usual one.
        milestones: of "multi-step", as shares of the run.
        ema: decay of an average of the weights, which is then what is kept; 0 is none.
        augment: random crops and flips.
        turn: largest random turn, in degrees.
        zoom: random scales from 1/(1 + zoom) to 1 + zoom.
        validation_share: share of the images that are held out and measured each epoch.
        patience: stop after so many epochs without a lower validation loss; None: never.
        size: side in pixels that images are resized to; None: as they are.
        test: a test set that is measured at the end.
        precision: "bf16", "fp16" or "fp32"; None: what is quickest here.
        compile: compile the network first.
        device: "cpu", "cuda", "cuda:1"; None: CUDA where it works, else the CPU.
        seed: of the weights, the order and the augmentation.
        save_every_s: seconds between two states that a killed run goes on from.
        memory_gib: larger sets of decoded images are read anew each epoch; None: half of what is free.
        tensorboard: write TensorBoard's events beside `out`, where it is installed.
        without: a list of suspects, which are left out.
        onnx: write the classifier as ONNX there too.
        overwrite: replace `out`, and a run with other settings that was begun there.
        progress: whether a bar is drawn, or a `Progress` to be told.
        stop: set by someone who wants the run to end.

    Raises:
        UsageError: a setting makes no sense.
        DiffcleanError: the data cannot be used, or the output exists.
        Interrupted: `stop` was set; the same call goes on.
    """
    options = dict(locals())
    del options["progress"], options["stop"]
    from diffclean.training.train import train as work

    with following(progress) as shown:
        return work(train_config(**options), shown, stop)


def train_config(**options: Any) -> TrainConfig:
    """The configuration of a training, from the arguments of `train`."""
    loop = loop_config(options)
    return TrainConfig(**with_paths(options, "data", "out", "test", "without", "onnx"), loop=loop)


def loop_config(options: dict[str, Any]) -> LoopConfig:
    """Take the settings of the loop itself out of `options`."""
    own = {field.name for field in fields(LoopConfig)} & set(options)
    loop = {name: options.pop(name) for name in own}
    return LoopConfig(**loop | {"milestones": tuple(loop["milestones"])})
