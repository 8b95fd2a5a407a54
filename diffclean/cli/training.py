"""What `train` and `distill` share: the options of the training loop, and what they say at the end."""

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

if TYPE_CHECKING:
    from diffclean.training.run import TrainResult

LOOP_OPTIONS = (
    click.option("--epochs", type=click.IntRange(1), help="Times that each image is seen."),
    click.option("--batch-size", type=click.IntRange(2), help="Images a step, over all processes."),
    click.option("--optimizer", type=click.Choice(["sgd", "adamw"]), help="SGD has Nesterov momentum."),
    click.option(
        "--learning-rate",
        type=click.FloatRange(0, min_open=True),
        help="At its peak.  [default: 0.1 for sgd, 0.001 for adamw]",
    ),
    click.option(
        "--weight-decay",
        type=click.FloatRange(0),
        help="Pull of the weights towards zero.  [default: 0.0005 for sgd, 0.05 for adamw]",
    ),
    click.option(
        "--schedule",
        type=click.Choice(["cosine", "multi-step", "constant"]),
        help="Of the learning rate: cosine rises and falls to zero (one cycle), multi-step falls to a tenth at each "
        "milestone.",
    ),
    click.option(
        "--warmup",
        type=click.FloatRange(0, 1, max_open=True),
        help="Share of the run in which the rate rises.  [default: 0.2 for cosine, else 0]",
    ),
    click.option(
        "--milestones",
        type=click.FloatRange(0, 1, min_open=True, max_open=True),
        multiple=True,
        show_default=False,
        help="Of multi-step, as shares of the run.  [default: 0.5 and 0.75]",
    ),
    click.option(
        "--ema",
        type=click.FloatRange(0, 1, max_open=True),
        help="Decay of an average of the weights, which is then what is kept; 0 is none.",
    ),
    click.option("--augment/--no-augment", help="Random crops and flips."),
    click.option("--turn", type=click.FloatRange(0, 180), help="Largest random turn, in degrees."),
    click.option("--zoom", type=click.FloatRange(0, 3), help="Random scales from 1/(1 + ZOOM) to 1 + ZOOM."),
    click.option(
        "--validation-share",
        type=click.FloatRange(0, 0.9),
        help="Share of the images, chosen by name, that are held out and measured each epoch.",
    ),
    click.option(
        "--patience",
        type=click.IntRange(1),
        help="Stop after so many epochs without a lower validation loss, and keep the best.  [default: never]",
    ),
    click.option(
        "--size",
        type=click.IntRange(16),
        help="Resize images to this side in px.  [default: a teacher's size where its file tells it, else as they are]",
    ),
    click.option(
        "--test", type=click.Path(path_type=Path), help="A test set to measure at the end, with the same classes."
    ),
    click.option(
        "--precision",
        type=click.Choice(["bf16", "fp16", "fp32"]),
        help="Of the computation.  [default: what is quickest here]",
    ),
    click.option("--compile/--no-compile", help="Compile the network first (torch.compile)."),
    click.option("--device", help="cpu, cuda, cuda:1.  [default: CUDA where it works, else the CPU]"),
    click.option("--seed", type=int, help="Of the weights, the order and the augmentation."),
    click.option(
        "--save-every-s",
        type=click.FloatRange(0),
        help="Seconds between two states that a killed run goes on from.",
    ),
    click.option(
        "--memory-gib",
        type=click.FloatRange(0),
        help="Larger sets of decoded images are read anew each epoch.  [default: half of what is free]",
    ),
    click.option("--tensorboard/--no-tensorboard", help="Write TensorBoard's events beside OUT, where installed."),
    click.option(
        "--without",
        type=click.Path(path_type=Path),
        metavar="LIST",
        help="Leave out the images on this list: of `suspects`, a JSON array of keys, or a .csv with a column `key`.",
    ),
    click.option("--onnx", type=click.Path(path_type=Path), help="Write the classifier as ONNX too."),
    click.option("--overwrite", is_flag=True, help="Replace OUT, and a run with other settings that was begun there."),
)


def loop_options(function: Callable[..., frame.Result]) -> Callable[..., frame.Result]:
    """Add the options of the training loop to a verb."""
    for option in reversed(LOOP_OPTIONS):
        function = option(function)
    return function


def own_progress(run: frame.Run) -> Any:
    """The progress of this process: those of `torchrun` that only help are silent."""
    return run.progress if os.environ.get("RANK", "0") == "0" else NoProgress()


def result_shown(result: TrainResult, what: str) -> frame.Result:
    """What `train` and `distill` say at the end."""
    if not result.is_first:
        raise click.exceptions.Exit(ExitCode.DONE)  # the first process says it all
    found = {name: value for name, value in vars(result.metrics).items() if value is not None}
    measured = ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in found.items())
    lines = [f"The {what} is in {result.path} ({measured}; {result.seconds:.0f} s)."]
    lines += [f"As ONNX it is in {result.onnx}."] if result.onnx else []
    lines += failures(result.failed)
    return frame.Result(result, lines, ExitCode.SOME_FAILED if result.failed else ExitCode.DONE)
