"""`diffclean variate`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from diffclean.api.variate import beside, settings_of, variate
from diffclean.cli import frame
from diffclean.cli.defaults import Interval
from diffclean.data.registry import FORMATS

SHOWN_FAILURES = 20


@frame.verb("variate", writes=True, door=variate)
@click.argument("source", type=click.Path(path_type=Path))
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Where to write.  [default: SOURCE-variations]")
@click.option("--engine", help="A recipe's name, an engine directory, or a model directory of `pretrain`.")
@click.option(
    "--runtime",
    type=click.Choice(
        ["auto", "tensorrt", "tensorrt-rtx", "onnxruntime-cuda", "openvino", "onnxruntime", "torch", "torch-compile"]
    ),
    help="What runs the engine; auto takes the best that works here.",
)
@click.option("--precision", type=click.Choice(["fp32", "fp16", "bf16"]), help="[default: the runtime's best]")
@click.option("--steps", type=int, help="Denoising steps.  [default: the engine's]")
@click.option(
    "--strength",
    type=float,
    help="How far from the source: 1 is from pure noise with the weakest look at the image.  [default: the engine's]",
)
@click.option("--guidance", type=float, help="Classifier-free guidance; 1 is off.  [default: the engine's]")
@click.option(
    "--guidance-interval",
    type=Interval(),
    metavar="LOW:HIGH",
    help="Noise levels at which guidance is on, 1 is pure noise; elsewhere a step costs half.",
)
@click.option(
    "--scheduler",
    type=click.Choice(["ddim", "dpm++", "unipc", "euler"]),
    help="How the steps are taken.  [default: the engine's]",
)
@click.option("--variations", type=int, help="How many of each image.")
@click.option("--seed", type=int, help="Of the run; each image's own seed follows from it and its name.")
@click.option("--batch", type=int, help="Images or windows the engine takes at once.  [default: the engine's]")
@click.option("--size", help="Of what comes out: source, native, or the longest side in pixels.")
@click.option(
    "--fit",
    type=click.Choice(["squash", "crop", "pad"]),
    help="How an image meets the model's square; undone on the way out, but what crop cuts off stays off.",
)
@click.option(
    "--detail",
    type=int,
    metavar="PX",
    help="Longer side at which a picture is looked at; more than the engine's square means overlapping windows, and "
    "time in proportion.  [default: the engine's]",
)
@click.option("--format", type=click.Choice(["png", "webp", "jpeg"]), help="Of the files.")
@click.option(
    "--color-transfer",
    type=click.Choice(["none", "mean-std", "lab"]),
    help="Copy colour statistics of the (suspect) source.",
)
@click.option(
    "--labels",
    metavar="WHICH",
    help="Of the variations: keep (the source's, as suspect as it is), none, or the file of a classifier that is asked "
    "about each variation.",
)
@click.option("--pixel-limit", type=int, help="Larger images are not decoded.")
@click.option("--byte-limit", type=int, help="Larger files are not read.")
@click.option("--time-limit", "time_limit_s", type=int, help="Seconds of processor time to decode one image.")
@click.option(
    "--full-names",
    is_flag=True,
    help="Keep the original's extension in the name (1.jpg_v00.png), so that 1.jpg and 1.png can both be there.",
)
@click.option(
    "--label-from",
    metavar="WHERE",
    help="folder: the first folder. subfolder: the second, below train and val. Or a table below SOURCE: "
    "metadata.csv, metadata.csv:COLUMN.  [default: the first folder]",
)
@click.option(
    "--to",
    type=click.Choice(list(FORMATS)),
    help="The format of OUT, see docs/formats.md.  [default: that of SOURCE]",
)
@click.option("--shard", help="I/N: only the Ith of N parts; `diffclean merge` joins them.")
@click.option(
    "--verify",
    is_flag=True,
    help="Before going on with an earlier run, compare every original and every variation with its recorded sha256, "
    "not only with its size and date.",
)
@click.option(
    "--processes", type=click.IntRange(1, 64), help="Processes that share the cores.  [default: what is quickest here]"
)
@click.option("--workers", type=click.IntRange(1, 64), help="Threads that read and write.  [default: one a core]")
@click.option("--threads", type=click.IntRange(1, 1024), help="Threads of the engine.  [default: all cores]")
def command(
    run: frame.Run,
    source: Path,
    out: Path | None,
    to: str | None,
    shard: str | None,
    verify: bool,
    processes: int | None,
    workers: int | None,
    threads: int | None,
    **options: Any,
) -> frame.Result:
    """Regenerate every image of SOURCE with an image-variation model.

    SOURCE is a folder of images, or a data set in another format: WebDataset tars such as 'x-{0000..0099}.tar', Parquet
    files, a saved Hugging Face data set, one .npz file. What an image shows is kept; a trigger is weakened. Variations
    land in the folder OUT, in the format that SOURCE has, so OUT is a labelled data set as SOURCE was, and its labels
    are as suspect: see --labels. A run that was stopped goes on when the same command is typed again.
    """
    out = out or beside(source)
    if run.dry_run:
        return _estimated(source, out, settings_of(**options), shard, threads, to)
    options |= {"to": to} | {
        "shard": shard,
        "verify": verify,
        "processes": processes,
        "workers": workers,
        "threads": threads,
    }
    with run.stopping() as stop:
        report = variate(source, out, **options, progress=run.progress, stop=stop)
    speed = f"{report.images_per_second:.1f} images/s, " if report.made else ""
    if report.windows > report.made + len(report.failed):
        speed += f"{report.windows / report.seconds:.0f} windows/s, "
    lines = [f"{report.made} variations in {report.out} ({speed}engine {report.engine})."]
    if report.labels_note:
        lines.append(report.labels_note)
    if report.kept:
        lines.append(f"{report.kept} were there already.")
    if report.failed:
        lines.append(f"{len(report.failed)} failed:")
        lines += [f"  {row.key}: {row.error}" for row in report.failed[:SHOWN_FAILURES]]
        if len(report.failed) > SHOWN_FAILURES:
            lines.append(f"  and {len(report.failed) - SHOWN_FAILURES} more, all in the manifest.")
    return frame.Result(report, lines, report.exit_code)


def _windows(found: Any) -> list[str]:
    if found.windows_per_image == 1:
        return []
    each = f"{found.windows_per_image:.0f} windows an image at --detail {found.settings.detail}"
    return [f"{found.windows:,} windows in all ({each}), {found.windows_per_second:.0f} a second."]


def _estimated(
    source: Path, out: Path, settings: Any, shard: str | None, threads: int | None, to: str | None
) -> frame.Result:
    from diffclean.data.shard import Shard
    from diffclean.variation.estimate import estimate

    part = Shard.parse(shard) if shard else None
    found = estimate(source, out, settings, shard=part, threads=threads, to=to)
    megabytes = found.bytes / 1e6
    lines = [
        f"{found.images} images, {found.variations} variations, {found.already_made} of them made already.",
        *_windows(found),
        f"About {found.seconds:.0f} s at {found.images_per_second:.1f} images/s (one batch measured, {found.engine}).",
        f"About {megabytes:.1f} MB in {out}. Nothing was written.",
    ]
    return frame.Result(vars(found) | {"out": out}, lines)
