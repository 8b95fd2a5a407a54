"""`diffclean distill`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from diffclean.api.distill import distill, distill_config
from diffclean.cli import frame
from diffclean.cli.classifier import classifier_options
from diffclean.cli.training import loop_options, own_progress, result_shown

if TYPE_CHECKING:
    from diffclean.training.distill_config import DistillConfig


@frame.verb("distill", writes=True, door=distill)
@click.option(
    "--teacher",
    required=True,
    type=click.Path(path_type=Path),
    help="The teacher: a classifier that `train` wrote, or a state dict (.pt, .pth, .safetensors) or an .onnx file "
    "from elsewhere.",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="The variations to learn from: an output folder of `variate`, or any folder that has one folder of images for "
    "each class.  [default: the only *-variations folder here]",
)
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    help="The file of the student, .pt or .safetensors.  [default: TEACHER-student.pt]",
)
@click.option(
    "--student",
    metavar="ARCH",
    help="The architecture of the student, one of those that --arch of `train` takes.  [default: the teacher's if it "
    "is known, else preact-resnet18]",
)
@click.option(
    "--temperature",
    type=click.FloatRange(0, min_open=True),
    help="The temperature by which the logits of teacher and student are divided before the softmax; higher is softer.",
)
@click.option(
    "--alpha",
    type=click.FloatRange(0, 1),
    help="The weight of the teacher's answers in the loss. The labels have the remaining weight, so 1 needs no labels.",
)
@click.option(
    "--paper-loss",
    is_flag=True,
    help="Apply the temperature to the label loss as well, as the released code of the paper does.",
)
@click.option(
    "--targets",
    type=click.Choice(["sampled", "averaged"]),
    help="Which answer of the teacher the student learns: the one to the variation at hand (sampled), or the mean of "
    "its answers to all variations of the same image (averaged).",
)
@classifier_options("teacher")
@loop_options(
    click.option(
        "--relabel",
        is_flag=True,
        help="Keep the images on the list of --without in training, with the labels that the teacher gives to their "
        "variations.",
    )
)
def command(run: frame.Run, teacher: Path, data: Path | None, out: Path | None, **options: Any) -> frame.Result:
    """Train a student on variations alone, from the answers of a suspect teacher.

    The student never sees an original image, so it never sees a trigger in one. The labels of suspect data are suspect
    too, so by default the student uses no labels; Struppek et al. 2023 (arXiv 2310.06372) use --alpha 0.5. The log is
    written beside OUT as a .jsonl file. To continue a run that was stopped, type the same command again. To train on
    several GPUs, run torchrun --nproc-per-node 2 --no-python diffclean distill ...
    """
    if run.dry_run:
        return _planned(distill_config(teacher, data, out, **options))
    with run.stopping() as stop:
        result = distill(teacher, data, out, **options, progress=own_progress(run), stop=stop)
    return result_shown(result, "student")


def _planned(config: DistillConfig) -> frame.Result:
    from diffclean.classifiers import loading
    from diffclean.classifiers.networks import check_arch, pick_device
    from diffclean.data.registry import open_source
    from diffclean.datasets.variations import classes_of, compare_classes
    from diffclean.training.distill import DEFAULT_STUDENT
    from diffclean.training.distill_config import check

    check(config)
    classes = classes_of(config.data)
    teacher = loading.load(config.teacher, classes, pick_device("cpu"))
    compare_classes(config.data, classes, teacher.class_to_idx, labelled=config.alpha < 1)
    arch = config.student or teacher.arch or DEFAULT_STUDENT
    check_arch(arch)
    count = len(open_source(config.data).items())
    found = {"images": count, "classes": len(teacher.class_to_idx), "student": arch, "data": config.data}
    lines = [
        f"Would train {arch} for {config.loop.epochs} epochs on {count} images of {len(teacher.class_to_idx)} classes "
        f"in {config.data}, and write {config.out}.",
        "Nothing was written.",
    ]
    return frame.Result({**found, "out": config.out}, lines)
