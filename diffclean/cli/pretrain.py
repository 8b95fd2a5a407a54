"""`diffclean pretrain`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from diffclean.api.common import data_path_of, path_of
from diffclean.cli import frame

if TYPE_CHECKING:
    from diffclean.pretraining.config import PretrainConfig


@frame.verb("pretrain", writes=True)
@click.argument("data", type=click.Path(path_type=Path))
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="The run folder to write.")
@click.option(
    "--images",
    type=click.IntRange(1),
    default=26_944,
    help="The number of images to train on in all; an image that is used twice counts twice.",
)
@click.option(
    "--minutes",
    type=click.FloatRange(0, min_open=True),
    help="Train for this many minutes in place of a number of images; the first step, validation and checkpoints do "
    "not count.",
)
@click.option("--batch", type=click.IntRange(1), default=32, help="The number of images in a training step.")
@click.option(
    "--learning-rate",
    type=click.FloatRange(0, min_open=True),
    default=1.5e-3,
    help="The learning rate at its peak.",
)
@click.option(
    "--decay-share",
    type=click.FloatRange(0, 1),
    default=0.0,
    help="The share of the run, at its end, in which the learning rate falls.",
)
@click.option(
    "--ema",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.998,
    help="The decay of the exponential moving average of the weights.",
)
@click.option(
    "--view-dropout",
    type=click.FloatRange(0, 1),
    default=0.05,
    help="The share of examples whose view is withheld, which classifier-free guidance needs.",
)
@click.option(
    "--low-resolution",
    type=click.FloatRange(0, 1),
    default=0.0,
    help="The share of steps whose images are first reduced to a lower resolution, so that they look like small images "
    "that were enlarged.",
)
@click.option(
    "--start-share",
    type=click.FloatRange(0, 1),
    default=0.0,
    help="The share of examples whose noise level is that of pure noise.",
)
@click.option(
    "--corrupt/--no-corrupt",
    default=True,
    help="Whether the views are corrupted during training; --no-corrupt is the ablation.",
)
@click.option(
    "--corruptions",
    type=click.Choice(["plain", "varied"]),
    default="plain",
    help="Which corruptions are used; varied adds patches of many shapes, edges and contents, and smooth random "
    "fields.",
)
@click.option(
    "--coarse-views/--fixed-views",
    default=False,
    help="Average the view over 2, 4 or 8 pixels, drawn at random for each image, so that --strength withholds "
    "resolution too; --fixed-views always averages over 2 pixels.",
)
@click.option(
    "--size", type=click.IntRange(16, 256), default=64, help="The side of the model's square input, in pixels."
)
@click.option(
    "--channels",
    type=click.IntRange(8),
    default=64,
    help="The number of channels of the network at half resolution.",
)
@click.option(
    "--blocks",
    type=click.IntRange(1),
    default=1,
    help="The number of residual blocks at each resolution, on the way down and on the way up.",
)
@click.option(
    "--layers",
    type=click.IntRange(1),
    default=4,
    help="The number of transformer blocks at an eighth of the resolution.",
)
@click.option("--heads", type=click.IntRange(1), default=4, help="The number of attention heads.")
@click.option("--seed", type=int, default=1, help="The seed of everything that is random.")
@click.option(
    "--validate-every",
    type=click.IntRange(1),
    default=500,
    help="The number of steps between two checkpoints, each with a validation and a sample grid.",
)
@click.option("--workers", type=click.IntRange(1, 64), default=2, help="The number of threads that decode the images.")
def command(run: frame.Run, data: Path, out: Path, workers: int, corruptions: str, **options: Any) -> frame.Result:
    """Train a variation model on DATA, images that you trust.

    DATA is a folder of images or a data set in another format, and may lie in a bucket: every image is read once.

    The run folder receives the model, checkpoints to resume from, the loss curve and sample grids. To use the model,
    give the folder `model` in the run folder to `variate --engine`. Labels are not used. The model works best if the
    images resemble those that you want to clean.
    """
    from diffclean.pretraining.config import PretrainConfig
    from diffclean.pretraining.corruptions import CORRUPTIONS

    data, out = data_path_of(data), path_of(out)
    config = PretrainConfig(**options, corruptions=CORRUPTIONS[corruptions])
    if run.dry_run:
        return _estimated(data, out, config)
    from diffclean.pretraining.pack import packed_images
    from diffclean.pretraining.pretrain import pretrain

    with run.stopping() as stop:
        images, failed = packed_images(data, out, config.size, workers, run.progress, stop)
        result = pretrain(images, out, config, run.progress, stop)
    lines = [
        f"The model is in {result.model_dir} ({result.steps} steps, {result.images_per_second:.1f} images/s, "
        f"validation loss {result.validation_loss:.4f}).",
        f"To use it: diffclean variate DATA --engine {result.model_dir}",
    ]
    if failed:
        lines.append(f"{failed} images could not be read and were left out.")
    return frame.Result({"model": result.model_dir, "unreadable": failed, **_figures(result)}, lines)


def _estimated(data: Path, out: Path, config: PretrainConfig) -> frame.Result:
    from diffclean.data.registry import open_source
    from diffclean.display.meter import seconds_text
    from diffclean.pretraining.estimate import seconds_a_step

    count = len(open_source(data).items())
    step_s = seconds_a_step(config)
    steps = config.steps or round(60 * (config.minutes or 0) / step_s)
    if config.steps:
        first = (
            f"{count} images, {steps:,} steps of {config.batch}: about {seconds_text(steps * step_s)} on this machine"
        )
    else:
        first = (
            f"{count} images, {config.minutes:g} minutes of steps of {config.batch}: on this machine about {steps:,} "
            f"steps, {steps * config.batch:,} images with repetition"
        )
    lines = [f"{first} ({step_s:.2f} s a step).", f"The run folder would be {out}. Nothing was written."]
    found = {"images": count, "steps": steps, "seconds_a_step": step_s, "seconds": steps * step_s, "out": out}
    return frame.Result(found, lines)


def _figures(result: Any) -> dict[str, Any]:
    names = ("steps", "images_per_second", "validation_loss")
    return {name: getattr(result, name) for name in names}
