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
    help="A classifier of `train`; or a state dict (.pt, .pth, .safetensors) or .onnx of anybody's.",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="A folder of `variate`, or any with one folder of images a class.  [default: the one *-variations here]",
)
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    help="The student: .pt or .safetensors.  [default: TEACHER-student.pt]",
)
@click.option(
    "--student", metavar="ARCH", help="As --arch of `train`.  [default: the teacher's where known, or preact-resnet18]"
)
@click.option("--temperature", type=click.FloatRange(0, min_open=True), help="Softens both answers.")
@click.option(
    "--alpha",
    type=click.FloatRange(0, 1),
    help="Weight of the teacher's answers, the labels have the rest; at 1 none are needed.",
)
@click.option("--paper-loss", is_flag=True, help="Labels at the temperature too, as the paper's released code has it.")
@click.option(
    "--targets",
    type=click.Choice(["sampled", "averaged"]),
    help="The teacher's answer to the variation that is shown, or the mean over all variations of its image.",
)
@classifier_options("teacher")
@loop_options
def command(run: frame.Run, teacher: Path, data: Path | None, out: Path | None, **options: Any) -> frame.Result:
    """Train a student on variations alone, from the answers of a suspect teacher.

    The student never sees an original, so it never sees a trigger. Labels of suspect data are suspect too, so by
    default the student learns from none; Struppek et al. 2023 (arXiv 2310.06372) have --alpha 0.5. The log is written
    beside OUT as .jsonl. A run that was stopped goes on when the same command is typed again. Several GPUs: torchrun
    --nproc-per-node 2 --no-python diffclean distill ...
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
        f"{count} images in {config.data}, {len(teacher.class_to_idx)} classes, {config.loop.epochs} epochs of {arch}, "
        f"into {config.out}.",
        "Nothing was written.",
    ]
    return frame.Result({**found, "out": config.out}, lines)
