"""`diffclean.train`."""

from __future__ import annotations

from dataclasses import fields
from threading import Event
from typing import TYPE_CHECKING, Any

from diffclean.api.common import AnyPath, data_path_of, following, with_paths
from diffclean.progress import Progress
from diffclean.training.loop_config import LoopConfig
from diffclean.training.recipes import STANDARD, filled
from diffclean.training.train_config import TrainConfig

if TYPE_CHECKING:
    from diffclean.training.run import TrainResult


def train(
    data: AnyPath,
    out: AnyPath,
    *,
    arch: str | None = None,
    label_smoothing: float | None = None,
    label_from: str | None = TrainConfig.label_from,
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
    relabel: AnyPath | None = TrainConfig.relabel,
    relabel_confidence: float = TrainConfig.relabel_confidence,
    keep_confirmed: bool = TrainConfig.keep_confirmed,
    onnx: AnyPath | None = TrainConfig.onnx,
    overwrite: bool = TrainConfig.overwrite,
    progress: bool | Progress = True,
    stop: Event | None = None,
) -> TrainResult:
    """Train a classifier on a folder that has one folder of images for each class.

    On suspect data, this is the teacher.

    To continue a run that was stopped, make the same call again.

    Args:
        data: the training set.
        out: the file of the classifier, .pt or .safetensors. The log is written beside it as a .jsonl file.
        arch: resnet18-cifar, preact-resnet18, wrn-16-1, resnet9-cifar, resnet8-cifar, airnet, or the name of any timm
            model. Here and below, None stands for the setting of the recipe, see `diffclean.training.recipes`.
        label_smoothing: the share of each training target that is spread evenly over all classes.
        label_from: where the labels come from: "folder", "subfolder", or a table below `data`; None stands for the
            first folder.
        recipe: "standard", or "fast": a network, an optimizer and augmentations that need few epochs on images of 32 to
            64 px.
        epochs: how many times the training sees each image.
        batch_size: the number of images in a training step.
        optimizer: "sgd", "adamw" or "muon".
        learning_rate: the learning rate at its peak; None stands for the usual one of the optimizer.
        weight_decay: the weight decay; None stands for the usual one of the optimizer.
        schedule: the schedule of the learning rate: "cosine", "linear", "multi-step" or "constant".
        warmup: the share of the run in which the learning rate rises; None stands for the usual one of the schedule.
        milestones: where "multi-step" lowers the learning rate, as shares of the run.
        ema: the decay of an exponential moving average of the weights, which is then what is saved; 0 turns it off.
        augment: whether the images are cropped and flipped at random.
        flip: "random"; "alternating": each image is mirrored in every other epoch; or "none", where a mirrored image
            means something else.
        shift: the largest random shift, as a share of the shorter side.
        turn: the largest random turn, in degrees.
        zoom: the images are scaled at random by a factor from 1/(1 + zoom) to 1 + zoom.
        validation_share: the share of the images that is held out and measured after each epoch.
        patience: the number of epochs without a lower validation loss after which training stops; None stands for
            never.
        size: the side in pixels of the squares that images are resized to; None keeps their size.
        test: a test set that is measured at the end.
        precision: "bf16", "fp16" or "fp32"; None stands for the fastest on this machine.
        compile: whether the network is compiled first.
        device: "cpu", "cuda", or one GPU such as "cuda:1"; None stands for CUDA where it works, else the CPU.
        seed: the seed of the initial weights, the order of the images and the augmentation.
        save_every_s: the seconds between two saved states; a killed run continues from the last one.
        memory_gib: the memory for decoded images; a larger set is read again in each epoch. None stands for half of the
            free memory.
        tensorboard: whether TensorBoard event files are written beside `out`, if TensorBoard is installed.
        without: a list of suspects, which are left out.
        relabel: a classifier that gives the suspects new labels, so that they stay in training; it should not have the
            backdoor.
        relabel_confidence: with `relabel`, an image is still left out if the probability of its new label is lower.
        keep_confirmed: with `relabel`, whether suspects whose own label is confirmed stay in training as well.
        onnx: a file that the classifier is also written to, as ONNX.
        overwrite: whether `out` is replaced, and an unfinished run with other settings discarded.
        progress: whether a bar is drawn, or a `Progress` to report to.
        stop: set this event to stop the run.

    Raises:
        UsageError: a setting is invalid.
        DiffcleanError: the data cannot be used, or the output exists.
        Interrupted: `stop` was set; the same call continues.
    """
    options = dict(locals())
    del options["progress"], options["stop"]
    from diffclean.training.train import train as work

    with following(progress) as shown:
        return work(train_config(**options), shown, stop)


def train_config(**options: Any) -> TrainConfig:
    """The configuration of a training, from the arguments of `train`."""
    options = filled(options.pop("recipe", STANDARD), options)
    loop = loop_config(options)
    options |= {name: data_path_of(options[name]) for name in ("data", "test") if name in options}
    return TrainConfig(**with_paths(options, "out", "without", "relabel", "onnx"), loop=loop)


def loop_config(options: dict[str, Any]) -> LoopConfig:
    """Take the settings of the training loop out of `options`."""
    own = {field.name for field in fields(LoopConfig)} & set(options)
    loop = {name: options.pop(name) for name in own}
    return LoopConfig(**loop | {"milestones": tuple(loop["milestones"])})
