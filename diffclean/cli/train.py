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
    "-o",
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    help="The file of the classifier, .pt or .safetensors.",
)
@click.option(
    "--arch",
    help="The architecture: resnet18-cifar, preact-resnet18, wrn-16-1, resnet9-cifar or resnet8-cifar (for CPUs), "
    "airnet (learns in few epochs), or the name of any timm model.  [default: resnet18-cifar, or airnet with --recipe "
    "fast]",
)
@click.option(
    "--label-smoothing",
    type=click.FloatRange(0, 1, max_open=True),
    help="Spread this share of each training target evenly over all classes.  [default: 0, or 0.2 with --recipe fast]",
)
@click.option(
    "--label-from",
    metavar="WHERE",
    help="Where the labels come from: folder (the name of the first folder), subfolder (the name of the second "
    "folder), or a table below DATA, given as metadata.csv or metadata.csv:COLUMN.  [default: the first folder]",
)
@loop_options(
    click.option(
        "--relabel",
        type=click.Path(path_type=Path),
        metavar="MODEL",
        help="Keep the images on the list of --without in training, with the labels that this classifier gives them. "
        "It should not have the backdoor, as a student or a teacher that was trained without the list.",
    )
)
def command(run: frame.Run, data: Path, out: Path, **options: Any) -> frame.Result:
    """Train a classifier on DATA, a folder that has one folder of images for each class.

    A classifier that is trained on suspect data is the teacher. The log is written beside OUT as a .jsonl file. To
    continue a run that was stopped, type the same command again. To train on several GPUs, run torchrun
    --nproc-per-node 2 --no-python diffclean train ...
    """
    if run.dry_run:
        from diffclean.classifiers.networks import check_arch, pick_device
        from diffclean.data.registry import open_source
        from diffclean.datasets.variations import classes_of
        from diffclean.training.relabel import open_second
        from diffclean.training.train_config import check

        config = train_config(data=data, out=out, **options)
        check(config)
        check_arch(config.arch)
        source = open_source(data, label_from=config.label_from)
        if config.relabel is not None:
            open_second(config.relabel, "relabel", classes_of(data, config.label_from), data, pick_device("cpu"))
        count, classes = len(source.items()), len(source.class_to_idx)
        lines = [
            f"Would train {config.arch} for {config.loop.epochs} epochs on {count} images of {classes} classes, and "
            f"write {out}."
        ]
        told_data = {"images": count, "classes": classes, "out": out, "passed_over": source.passed_over.as_json()}
        return frame.Result(told_data, [*lines, "Nothing was written."])
    with run.stopping() as stop:
        result = train(data, out, **options, progress=own_progress(run), stop=stop)
    return result_shown(result, "classifier")
