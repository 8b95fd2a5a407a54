"""What `train` and `distill` have in common: the options of the training loop and the lines printed at the end."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from diffclean.cli import frame
from diffclean.cli.failures import failures
from diffclean.errors import ExitCode
from diffclean.progress import NoProgress
from diffclean.training.loop_config import FLIPS, LEARNING_RATES, SCHEDULES
from diffclean.training.recipes import FAST, RECIPES, STANDARD

if TYPE_CHECKING:
    from diffclean.training.relabel import Relabelled
    from diffclean.training.run import TrainResult


def _defaults(name: str) -> str:
    """What a help text says of a default that depends on the recipe."""
    standard, fast = (RECIPES[recipe][name] for recipe in (STANDARD, FAST))
    return f"  [default: {standard}, or {fast} with --recipe fast]"


LOOP_OPTIONS = (
    click.option(
        "--recipe",
        type=click.Choice(list(RECIPES)),
        help="The settings that are used where you give none: standard, or fast, which needs few epochs on images of "
        "32 to 64 px (network airnet, optimizer muon).",
    ),
    click.option(
        "--epochs",
        type=click.IntRange(1),
        help=f"How many times the training sees each image.{_defaults('epochs')}",
    ),
    click.option(
        "--batch-size",
        type=click.IntRange(2),
        help=f"The number of images in a training step, over all processes.{_defaults('batch_size')}",
    ),
    click.option(
        "--optimizer",
        type=click.Choice(list(LEARNING_RATES)),
        help="The optimizer. SGD runs with Nesterov momentum; Muon trains kernels, and AdamW biases and the last layer "
        f"beside it.{_defaults('optimizer')}",
    ),
    click.option(
        "--learning-rate",
        type=click.FloatRange(0, min_open=True),
        help="The learning rate at its peak.  [default: 0.1 for sgd, 0.001 for adamw, 0.24 for muon]",
    ),
    click.option(
        "--weight-decay",
        type=click.FloatRange(0),
        help="The weight decay, which pulls the weights towards zero.  [default: 0.0005 for sgd, 0.05 for adamw, "
        "0.12 for muon, less beyond 200 steps]",
    ),
    click.option(
        "--schedule",
        type=click.Choice(SCHEDULES),
        help="How the learning rate changes: cosine rises and then falls to zero (one cycle), linear falls evenly to "
        f"zero, multi-step falls to a tenth at each milestone, constant stays as it is.{_defaults('schedule')}",
    ),
    click.option(
        "--warmup",
        type=click.FloatRange(0, 1, max_open=True),
        help="The share of the run in which the learning rate rises.  [default: 0.2 for cosine, else 0]",
    ),
    click.option(
        "--milestones",
        type=click.FloatRange(0, 1, min_open=True, max_open=True),
        multiple=True,
        show_default=False,
        help="Where the multi-step schedule lowers the learning rate, as a share of the run.  [default: 0.5 and 0.75]",
    ),
    click.option(
        "--ema",
        type=click.FloatRange(0, 1, max_open=True),
        help="Keep an exponential moving average of the weights with this decay in place of the last weights; 0 turns "
        "it off.",
    ),
    click.option("--augment/--no-augment", help="Crop and flip the training images at random."),
    click.option(
        "--flip",
        type=click.Choice(FLIPS),
        help="How images are mirrored: at random; alternating, where each image is mirrored in every other epoch; or "
        "none, where a mirrored image means something else."
        f"{_defaults('flip')}",
    ),
    click.option(
        "--shift",
        type=click.FloatRange(0, 0.5),
        help=f"The largest random shift, as a share of the shorter side.{_defaults('shift')}",
    ),
    click.option(
        "--turn", type=click.FloatRange(0, 180), help="Turn the training images at random by up to this many degrees."
    ),
    click.option(
        "--zoom",
        type=click.FloatRange(0, 3),
        help="Scale the training images at random by a factor from 1/(1 + ZOOM) to 1 + ZOOM.",
    ),
    click.option(
        "--validation-share",
        type=click.FloatRange(0, 0.9),
        help="Hold out this share of the images, chosen by name, and measure the classifier on it after each epoch.",
    ),
    click.option(
        "--patience",
        type=click.IntRange(1),
        help="Stop after this many epochs without a lower validation loss, and keep the best weights.  [default: "
        "never]",
    ),
    click.option(
        "--size",
        type=click.IntRange(16),
        help="Resize the images to squares of this side, in pixels.  [default: the teacher's size where its file says "
        "it, else the size that the images have]",
    ),
    click.option(
        "--test",
        type=click.Path(path_type=Path),
        help="A test set with the same classes, on which the classifier is measured at the end.",
    ),
    click.option(
        "--precision",
        type=click.Choice(["bf16", "fp16", "fp32"]),
        help="The floating-point format of the computation.  [default: the fastest one on this machine]",
    ),
    click.option("--compile/--no-compile", help="Compile the network with torch.compile before training."),
    click.option(
        "--device",
        help="The device to train on: cpu, cuda, or one GPU such as cuda:1.  [default: CUDA where it works, else the "
        "CPU]",
    ),
    click.option(
        "--seed",
        type=int,
        help="The seed of the initial weights, the order of the images and the augmentation.",
    ),
    click.option(
        "--save-every-s",
        type=click.FloatRange(0),
        help="The time in seconds between two saves of the training state; a killed run continues from the last save.",
    ),
    click.option(
        "--memory-gib",
        type=click.FloatRange(0),
        help="Keep the decoded images in memory if they fit into this many GiB; a larger set is read again in each "
        "epoch.  [default: half of the free memory]",
    ),
    click.option(
        "--tensorboard/--no-tensorboard", help="Write TensorBoard event files beside OUT, if TensorBoard is installed."
    ),
    click.option(
        "--without",
        type=click.Path(path_type=Path),
        metavar="LIST",
        help="Leave out the images on this list: a file that `suspects` wrote, a JSON array of keys, or a .csv file "
        "with a column `key`.",
    ),
)
AFTER_RELABEL = (
    click.option(
        "--relabel-confidence",
        type=click.FloatRange(0, 1, max_open=True),
        help="With --relabel, still leave out an image if the probability of its new label is lower than this.",
    ),
    click.option(
        "--keep-confirmed",
        is_flag=True,
        help="With --relabel, also keep the listed images whose own label is confirmed. By default they are left out, "
        "because images that are poisoned with clean labels look like this.",
    ),
    click.option("--onnx", type=click.Path(path_type=Path), help="Also write the classifier to this file as ONNX."),
    click.option(
        "--overwrite",
        is_flag=True,
        help="Replace OUT if it exists, and discard an unfinished run with other settings.",
    ),
)


Verb = Callable[..., frame.Result]


def loop_options(relabel: Callable[[Verb], Verb]) -> Callable[[Verb], Verb]:
    """Add the options of the training loop to a verb.

    Args:
        relabel: the option `--relabel`, which is not the same for `train` and `distill`.
    """

    def decorate(function: Verb) -> Verb:
        for option in reversed((*LOOP_OPTIONS, relabel, *AFTER_RELABEL)):
            function = option(function)
        return function

    return decorate


def own_progress(run: frame.Run) -> Any:
    """The progress to report to. Under `torchrun` only the first process reports; the others are silent."""
    return run.progress if os.environ.get("RANK", "0") == "0" else NoProgress()


def result_shown(result: TrainResult, what: str) -> frame.Result:
    """The result of `train` or `distill` with the lines that are printed at the end."""
    if not result.is_first:
        raise click.exceptions.Exit(ExitCode.DONE)  # under torchrun, only the first process prints the result
    found = {name: value for name, value in vars(result.metrics).items() if value is not None}
    measured = ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in found.items())
    lines = [f"The {what} is in {result.path} ({measured}; {result.seconds:.0f} s)."]
    lines += [f"The {what} as ONNX is in {result.onnx}."] if result.onnx else []
    lines += relabelling(result.relabelled) if result.relabelled else []
    lines += failures(result.failed)
    return frame.Result(result, lines, ExitCode.SOME_FAILED if result.failed else ExitCode.DONE)


def relabelling(done: Relabelled) -> list[str]:
    """The lines that say what happened to the images on the list."""
    new = ", ".join(f"{name} {count}" for name, count in sorted(done.labels.items(), key=lambda pair: -pair[1]))
    kept = "and stay in training" if done.confirmed_kept else "and are left out (--keep-confirmed keeps them)"
    lines = [f"{sum(done.labels.values())} of {done.images} listed images have a new label{f': {new}' if new else ''}."]
    lines += [f"{done.confirmed} have a label that {done.model} confirms, {kept}."] if done.confirmed else []
    if done.unsure:
        lines.append(f"{done.unsure} are left out, because no class has a probability of {done.confidence:g} or more.")
    if done.agreement is not None:
        lines.append(f"{done.model} agrees with {done.agreement:.0%} of the labels of images that are not on the list.")
    return lines
