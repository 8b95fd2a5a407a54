"""`diffclean train`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from diffclean.api.train import train, train_config
from diffclean.cli import frame
from diffclean.cli.training import loop_options, own_progress, result_shown


@frame.verb("train", writes=True, door=train)
@click.argument("data", type=click.Path(path_type=Path))
@click.option(
    "-o", "--out", required=True, type=click.Path(path_type=Path), help="The classifier: .pt or .safetensors."
)
@click.option(
    "--arch",
    help="resnet18-cifar, preact-resnet18, wrn-16-1, resnet9-cifar or resnet8-cifar (for CPUs), or any timm model.",
)
@click.option("--label-smoothing", type=click.FloatRange(0, 1, max_open=True), help="Softens the targets.")
@click.option(
    "--label-from",
    metavar="WHERE",
    help="folder: the first folder. subfolder: the second. Or a table below DATA: metadata.csv, metadata.csv:COLUMN.  "
    "[default: the first folder]",
)
@loop_options
def command(run: frame.Run, data: Path, out: Path, **options: Any) -> frame.Result:
    """Train a classifier on DATA, a folder with one folder of images a class.

    On suspect data this is the teacher. The log is written beside OUT as .jsonl. A run that was stopped goes on when
    the same command is typed again. Several GPUs: torchrun --nproc-per-node 2 --no-python diffclean train ...
    """
    if run.dry_run:
        from diffclean.classifiers.networks import check_arch
        from diffclean.data.registry import open_source
        from diffclean.training.train_config import check

        config = train_config(data=data, out=out, **options)
        check(config)
        check_arch(config.arch)
        source = open_source(data, label_from=config.label_from)
        count, classes = len(source.items()), len(source.class_to_idx)
        lines = [f"{count} images of {classes} classes, {config.loop.epochs} epochs of {config.arch}, into {out}."]
        told_data = {"images": count, "classes": classes, "out": out, "passed_over": source.passed_over.as_json()}
        return frame.Result(told_data, [*lines, "Nothing was written."])
    with run.stopping() as stop:
        result = train(data, out, **options, progress=own_progress(run), stop=stop)
    return result_shown(result, "classifier")
