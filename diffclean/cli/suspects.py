"""`diffclean suspects`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from diffclean.cli import frame
from diffclean.cli.failures import failures
from diffclean.cli.teacher import teacher_config, teacher_options
from diffclean.errors import DiffcleanError, ExitCode


@frame.verb("suspects", writes=True)
@click.option("--teacher", required=True, type=click.Path(path_type=Path), help="As for `distill`.")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="An output folder of `variate`, best made with --strength 0.4 --variations 4 or more.  [default: the one "
    "*-variations here]",
)
@click.option(
    "--originals",
    type=click.Path(path_type=Path),
    help="What was varied: the data that the teacher was trained on.  [default: where it was then]",
)
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    default="suspects.json",
    help="The list, for --without of `train` and `distill`.",
)
@click.option("--overwrite", is_flag=True, help="Replace OUT where it exists.")
@teacher_options
@click.option("--device", help="cpu, cuda, cuda:1.  [default: CUDA where it works, else the CPU]")
def command(
    run: frame.Run,
    teacher: Path,
    data: Path | None,
    originals: Path | None,
    out: Path,
    overwrite: bool,
    device: str | None,
    **options: Any,
) -> frame.Result:
    """Find poisoned images by what variation does to the answers of a suspect teacher.

    A trigger makes the teacher surer than the image itself does, and variation takes it away. Where the images of one
    class fall into two groups by how much surer, the upper group is listed. No clean data and no labels are needed. A
    class with one group only may still be poisoned, by a trigger that survives: see docs/distillation.md.
    """
    from diffclean.data.run_record import read_run
    from diffclean.datasets.variations import find_variations

    data = data or find_variations(Path())
    if out.exists() and not overwrite:
        raise DiffcleanError(f"{out} exists.", "Add --overwrite to replace it, or name another -o.")
    if run.dry_run:
        return frame.Result({"data": data, "out": out}, [f"{data} would be judged, into {out}. Nothing was written."])
    from diffclean.detection.variation_drop import find_suspects

    found = find_suspects(teacher_config(teacher, options), data, originals, device, run.progress)
    found.write(out)
    lines = []
    for judged in found.classes:
        if judged.suspects:
            lines.append(
                f"{judged.name}: {judged.suspects} of {judged.images} images stand out (separation "
                f"{judged.separation:.2f}, above {judged.limit:.2f})"
            )
    rest = [judged for judged in found.classes if not judged.suspects and judged.images]
    if rest:
        most = max(rest, key=lambda judged: judged.separation)
        lines.append(
            f"{'In the other classes' if lines else 'In no class do'} "
            f"{'no' if lines else 'any'} images stand out (largest separation {most.separation:.2f}, in {most.name})"
        )
    lines.append(f"The list is in {out}.")
    if found.keys:
        source = originals or read_run(data).identity["source"]
        lines.append(f"A teacher without them: diffclean train {source} --without {out} -o {teacher.stem}-anew.pt")
        lines.append(f"Its student: diffclean distill --teacher {teacher.stem}-anew.pt --data {data} --without {out}")
    lines += failures(found.missing)
    told = {
        "out": out,
        "images": len(found.images),
        "suspects": len(found.keys),
        "classes": [asdict(judged) for judged in found.classes],
        "failed": found.missing,
    }
    return frame.Result(told, lines, ExitCode.SOME_FAILED if found.missing else ExitCode.DONE)
