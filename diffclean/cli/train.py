"""`diffclean train`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from diffclean.cli import frame
from diffclean.errors import ExitCode

SHOWN_FAILURES = 20


@frame.verb("train", writes=True)
@click.argument("data", type=click.Path(path_type=Path))
@click.option(
    "-o", "--out", required=True, type=click.Path(path_type=Path), help="The classifier: .pt or .safetensors."
)
@click.option(
    "--test", type=click.Path(path_type=Path), help="A test set to measure at the end, with the same classes."
)
@click.option(
    "--arch",
    default="resnet18-cifar",
    help="resnet18-cifar, preact-resnet18, wrn-16-1, resnet9-cifar or resnet8-cifar (for CPUs), or any timm model.",
)
@click.option("--epochs", type=click.IntRange(1), default=20, help="Times that each image is seen.")
@click.option("--batch-size", type=click.IntRange(2), default=128, help="Images a step.")
@click.option("--learning-rate", type=click.FloatRange(0, min_open=True), default=0.1, help="At its peak.")
@click.option("--weight-decay", type=click.FloatRange(0), default=5e-4, help="Pull of the weights towards zero.")
@click.option("--label-smoothing", type=click.FloatRange(0, 1, max_open=True), default=0.0, help="Softens the targets.")
@click.option("--size", type=click.IntRange(16), help="Resize images to this side in px.  [default: as they are]")
@click.option("--augment/--no-augment", default=True, help="Random crops and flips.")
@click.option("--precision", type=click.Choice(["bf16", "fp32"]), default="bf16", help="Of the computation.")
@click.option("--device", help="cpu, cuda, cuda:1.  [default: CUDA where it works, else the CPU]")
@click.option("--seed", type=int, default=1, help="Of the weights, the order and the augmentation.")
@click.option("--overwrite", is_flag=True, help="Replace OUT where it exists.")
def command(run: frame.Run, data: Path, out: Path, **options: Any) -> frame.Result:
    """Train a classifier on DATA, a folder with one folder of images a class.

    On suspect data this is the teacher. The log is written beside OUT as .jsonl.
    """
    from diffclean.training.train_config import TrainConfig, check

    config = TrainConfig(data=data, out=out, **options)
    if run.dry_run:
        from diffclean.data.sources import ImageFolder

        check(config)
        source = ImageFolder(data)
        count, classes = len(source.items()), len(source.class_to_idx)
        lines = [f"{count} images of {classes} classes, {config.epochs} epochs of {config.arch}, into {out}."]
        return frame.Result({"images": count, "classes": classes, "out": out}, [*lines, "Nothing was written."])
    from diffclean.training.train import train

    with run.stopping() as stop:
        result = train(config, run.progress, stop)
    measured = ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in result.metrics.items())
    lines = [f"The classifier is in {result.path} ({measured}; {result.seconds:.0f} s)."]
    lines += failures(result.failed)
    data_out = {
        "path": result.path,
        "log": result.log_path,
        "metrics": result.metrics,
        "losses": result.losses,
        "seconds": result.seconds,
        "failed": result.failed,
    }
    return frame.Result(data_out, lines, ExitCode.SOME_FAILED if result.failed else ExitCode.DONE)


def failures(failed: dict[str, str]) -> list[str]:
    """Lines that list the images that could not be read, cut short."""
    if not failed:
        return []
    lines = [f"{len(failed)} images could not be read and were left out:"]
    lines += [f"  {key}: {why}" for key, why in list(failed.items())[:SHOWN_FAILURES]]
    return lines + ([f"  and {len(failed) - SHOWN_FAILURES} more."] if len(failed) > SHOWN_FAILURES else [])
