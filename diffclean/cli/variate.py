"""`diffclean variate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from diffclean.api.variate import beside, settings_of, variate
from diffclean.cli import frame
from diffclean.cli.defaults import Interval
from diffclean.data.address import spelled
from diffclean.data.registry import FORMATS
from diffclean.variation.schedule import SCHEDULERS

if TYPE_CHECKING:
    from diffclean.variation.variate import VariateResult

SHOWN_FAILURES = 20


@frame.verb("variate", writes=True, door=variate)
@click.argument("source", type=click.Path(path_type=Path))
@click.option("-o", "--out", type=click.Path(path_type=Path), help="The folder to write.  [default: SOURCE-variations]")
@click.option(
    "--engine",
    help="The engine: the name of a recipe, an engine directory, or a model directory that `pretrain` wrote.",
)
@click.option(
    "--runtime",
    type=click.Choice(
        ["auto", "tensorrt", "tensorrt-rtx", "onnxruntime-cuda", "openvino", "onnxruntime", "torch", "torch-compile"]
    ),
    help="The runtime that runs the engine; auto takes the best one that works on this machine.",
)
@click.option(
    "--precision",
    type=click.Choice(["fp32", "fp16", "bf16"]),
    help="The floating-point format that the engine computes in.  [default: the runtime's best]",
)
@click.option("--steps", type=int, help="The number of denoising steps.  [default: the engine's]")
@click.option(
    "--strength",
    type=float,
    help="How far a variation may differ from its source, above 0 and up to 1. At 1 the model starts from pure noise "
    "and is given the least information about the image.  [default: the engine's]",
)
@click.option(
    "--guidance", type=float, help="The scale of classifier-free guidance; 1 turns it off.  [default: the engine's]"
)
@click.option(
    "--guidance-interval",
    type=Interval(),
    metavar="LOW:HIGH",
    help="The noise levels between which guidance is on, where 1 is pure noise; outside of them a step costs half.",
)
@click.option(
    "--scheduler",
    type=click.Choice(list(SCHEDULERS)),
    help="The scheduler, which is the numerical method of the denoising steps. lcm and tcd need a model that "
    "was distilled for them; edm, edm-dpm++ and flow need one that was trained for them; the others fit most models.  "
    "[default: the engine's]",
)
@click.option("--variations", type=int, help="The number of variations to make of each image.")
@click.option(
    "--seed", type=int, help="The seed of the run; the seed of each image is derived from it and the image's key."
)
@click.option(
    "--batch", type=int, help="The number of images or windows in a batch of the engine.  [default: the engine's]"
)
@click.option(
    "--size",
    help="The size of the variations: source (that of each original), native (that of the model), or the longer side "
    "in pixels.",
)
@click.option(
    "--fit",
    type=click.Choice(["squash", "crop", "pad"]),
    help="How an image is made to fit the model's square. squash and pad are undone in the output; what crop cuts off "
    "is lost.",
)
@click.option(
    "--detail",
    type=int,
    metavar="PX",
    help="The longer side, in pixels, to which an image is reduced before it is regenerated. If it is larger than the "
    "engine's square, the image is regenerated in overlapping windows, and takes longer in proportion.  [default: the "
    "engine's]",
)
@click.option("--format", type=click.Choice(["png", "webp", "jpeg"]), help="The file format of the variations.")
@click.option(
    "--color-transfer",
    type=click.Choice(["none", "mean-std", "lab"]),
    help="Which colour statistics of the source, which is suspect, are copied to the variation.",
)
@click.option(
    "--min-similarity",
    type=float,
    metavar="SIMILARITY",
    help="The similarity that a variation must have to its source, above 0 and up to 1, see docs/families.md. Others "
    "are made again with another seed, twice at most, and are then listed as filtered and not written. --dry-run shows "
    "the similarities of a sample.  [default: no such gate]",
)
@click.option(
    "--labels",
    metavar="WHICH",
    help="The labels of the variations: keep (those of the source, which are suspect), none, or the file of a "
    "classifier that labels each variation.",
)
@click.option("--pixel-limit", type=int, help="The largest image to decode, in pixels; larger ones fail.")
@click.option("--byte-limit", type=int, help="The largest file to read, in bytes; larger ones fail.")
@click.option(
    "--time-limit", "time_limit_s", type=int, help="The processor time in which an image must be decoded, in seconds."
)
@click.option(
    "--full-names",
    is_flag=True,
    help="Keep the extension of the original in the file name (1.jpg_v00.png), so that 1.jpg and 1.png can be in the "
    "same folder.",
)
@click.option(
    "--label-from",
    metavar="WHERE",
    help="Where the labels come from: folder (the name of the first folder), subfolder (the name of the second folder, "
    "below train and val), or a table below SOURCE, given as metadata.csv or metadata.csv:COLUMN.  [default: the first "
    "folder]",
)
@click.option(
    "--shard",
    metavar="I/N",
    help="Regenerate only part I of N, for example 2/8; `diffclean merge` joins the parts.",
)
@click.option(
    "--to",
    type=click.Choice(list(FORMATS)),
    help="The format of OUT, see docs/formats.md.  [default: that of SOURCE]",
)
@click.option(
    "--verify",
    is_flag=True,
    help="Before going on with an earlier run, compare every original and every variation with its recorded sha256, "
    "not only with its size and date.",
)
@click.option(
    "--processes",
    type=click.IntRange(1, 64),
    help="The number of processes that share the cores.  [default: the fastest for this machine]",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 64),
    help="The number of threads that read and write images.  [default: one for each core]",
)
@click.option(
    "--threads", type=click.IntRange(1, 1024), help="The number of threads of the engine.  [default: all cores]"
)
@click.option(
    "--executor",
    type=click.Choice(["local", "ray"]),
    help="Where the work is done: on this machine, or on a Ray cluster, see docs/scale.md. On a cluster, --processes "
    "is the largest number of actors, --threads the number of CPUs of each actor (1 by default).",
)
@click.option(
    "--ray-address",
    metavar="ADDRESS",
    help="The Ray cluster: auto for the one that runs on this machine or that RAY_ADDRESS names, local for one that is "
    "started for this run, or HOST:PORT.",
)
@click.option(
    "--num-gpus",
    type=click.FloatRange(0),
    help="The number of GPUs of each actor on the Ray cluster, such as 1, 0.5 or 0.  [default: 1 if a node of the "
    "cluster has a GPU, else 0]",
)
@click.option(
    "--ray-wait",
    "ray_wait_s",
    type=click.FloatRange(0),
    metavar="SECONDS",
    help="How long to wait for a node of the Ray cluster that is large enough, if an autoscaler starts it on demand.",
)
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
    executor: str,
    ray_address: str,
    num_gpus: float | None,
    ray_wait_s: float,
    **options: Any,
) -> frame.Result:
    """Regenerate every image of SOURCE with an image-variation model.

    SOURCE is a folder of images, or a data set in another format: WebDataset tars such as 'x-{0000..0099}.tar', Parquet
    files, a saved Hugging Face data set, or one .npz file. SOURCE and OUT may lie in buckets: s3://BUCKET/FOLDER, gs://
    and az:// (docs/buckets.md). A variation keeps what the image shows and weakens a
    trigger. The variations are written to the folder OUT in the format of SOURCE, so OUT is a labelled data set like
    SOURCE. Its labels are as suspect as those of SOURCE: see --labels. To continue a run that was stopped, type the
    same command again.
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
        "executor": executor,
        "ray_address": ray_address,
        "num_gpus": num_gpus,
        "ray_wait_s": ray_wait_s,
    }
    with run.stopping() as stop:
        report = variate(source, out, **options, progress=run.progress, stop=stop)
    speed = f"{report.images_per_second:.1f} images/s, " if report.made else ""
    if report.windows > report.made + len(report.failed) + report.filtered + report.again:
        speed += f"{report.windows / report.seconds:.0f} windows/s, "
    busy = f", busy {report.engine_busy:.0%} of the time" if report.windows else ""
    lines = [f"{report.made} variations in {report.where} ({speed}engine {report.engine}{busy})."]
    if report.labels_note:
        lines.append(report.labels_note)
    if report.kept:
        lines.append(f"{report.kept} variations were there already.")
    lines += _gate(report)
    if report.failed:
        lines.append(f"{len(report.failed)} variations failed:")
        lines += [f"  {row.key}: {row.error}" for row in report.failed[:SHOWN_FAILURES]]
        if len(report.failed) > SHOWN_FAILURES:
            lines.append(f"  and {len(report.failed) - SHOWN_FAILURES} more, all in the manifest.")
    return frame.Result(report, lines, report.exit_code)


def _gate(report: VariateResult) -> list[str]:
    """What the quality gate did, and what it cost; nothing if there was none."""
    least = report.settings.min_similarity
    if least is None:
        return []
    lines = [
        f"Quality gate (--min-similarity {least:g}): it cost {report.again} repetitions with another seed, and "
        f"{report.comparing_s:.1f} s of comparing."
    ]
    if report.filtered:
        lines.append(
            f"{report.filtered} of {report.total} variations were filtered: none of their attempts was similar enough "
            "to the source. They were not written; the manifest has them with the status filtered."
        )
    return lines


def _windows(found: Any) -> list[str]:
    if found.windows_per_image == 1:
        return []
    each = f"{found.windows_per_image:.0f} windows for each image at --detail {found.settings.detail}"
    return [f"{found.windows:,} windows in all ({each}), {found.windows_per_second:.0f} windows/s."]


def _similarities(found: Any) -> list[str]:
    if not found.similarities:
        return []
    least, ordered = found.settings.min_similarity, sorted(found.similarities)
    below = sum(each < least for each in ordered)
    return [
        f"Similarities of a sample to their sources ({found.measure}): {ordered[0]:.2f} at least, "
        f"{ordered[len(ordered) // 2]:.2f} in the middle, {ordered[-1]:.2f} at most. {below} of {len(ordered)} are "
        f"below --min-similarity {least:g} and would be made again."
    ]


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
        *_similarities(found),
        f"About {found.seconds:.0f} s at {found.images_per_second:.1f} images/s (measured on one batch, "
        f"{found.engine}).",
        f"About {megabytes:.1f} MB would be written to {spelled(out)}. Nothing was written.",
    ]
    return frame.Result(vars(found) | {"out": spelled(out)}, lines)
