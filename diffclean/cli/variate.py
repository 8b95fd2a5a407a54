"""`diffclean variate`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from diffclean.cli import frame
from diffclean.errors import UsageError

SHOWN_FAILURES = 20


@frame.verb("variate", writes=True)
@click.argument("source", type=click.Path(path_type=Path))
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Where to write.  [default: SOURCE-variations]")
@click.option(
    "--engine", default="micro", help="A recipe's name, an engine directory, or a model directory of `pretrain`."
)
@click.option(
    "--runtime",
    type=click.Choice(
        ["auto", "tensorrt", "tensorrt-rtx", "onnxruntime-cuda", "openvino", "onnxruntime", "torch", "torch-compile"]
    ),
    default="auto",
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
    metavar="LOW:HIGH",
    default="0:1",
    help="Noise levels at which guidance is on, 1 is pure noise; elsewhere a step costs half.",
)
@click.option(
    "--scheduler",
    type=click.Choice(["ddim", "dpm++", "unipc", "euler"]),
    help="How the steps are taken.  [default: the engine's]",
)
@click.option("--variations", type=int, default=1, help="How many of each image.")
@click.option("--seed", type=int, default=0, help="Of the run; each image's own seed follows from it and its name.")
@click.option("--batch", type=int, help="Images the engine takes at once.  [default: the engine's]")
@click.option("--size", default="source", help="Of what comes out: source, native, or the longest side in pixels.")
@click.option(
    "--fit",
    type=click.Choice(["squash", "crop", "pad"]),
    default="squash",
    help="How an image meets the model's square; undone on the way out, but what crop cuts off stays off.",
)
@click.option("--format", "format_", type=click.Choice(["png", "webp", "jpeg"]), default="png", help="Of the files.")
@click.option(
    "--color-transfer",
    type=click.Choice(["none", "mean-std", "lab"]),
    default="none",
    help="Copy colour statistics of the (suspect) source.",
)
@click.option("--pixel-limit", type=int, default=100_000_000, help="Larger images are not decoded.")
@click.option("--byte-limit", type=int, default=512 * 2**20, help="Larger files are not read.")
@click.option(
    "--time-limit", "time_limit_s", type=int, default=30, help="Seconds of processor time to decode one image."
)
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
    shard: str | None,
    verify: bool,
    processes: int | None,
    workers: int | None,
    threads: int | None,
    **options: Any,
) -> frame.Result:
    """Regenerate every image below SOURCE with an image-variation model.

    What an image shows is kept; a trigger is not. Variations land in OUT under the same folders, so OUT is a labelled
    data set as SOURCE was. A run that was stopped goes on when the same command is typed again.
    """
    from diffclean.data.encode import ImageFormat
    from diffclean.data.fit import Fit, OutputSize
    from diffclean.data.shard import Shard
    from diffclean.variation.color import ColorTransfer
    from diffclean.variation.settings import Settings

    out = out or Path(f"{_plain(source)}-variations")
    part = Shard.parse(shard) if shard else None
    settings = Settings(
        format=ImageFormat(options.pop("format_")),
        size=OutputSize.parse(options.pop("size")),
        fit=Fit(options.pop("fit")),
        color_transfer=ColorTransfer(options.pop("color_transfer")),
        guidance_interval=_interval(options.pop("guidance_interval")),
        **options,
    )
    if run.dry_run:
        return _estimated(source, out, settings, part, threads)
    from diffclean.variation.variate import Concurrency, variate

    concurrency = Concurrency(processes, workers, threads)
    with run.stopping() as stop:
        report = variate(
            source,
            out,
            settings,
            shard=part,
            concurrency=concurrency,
            progress=run.progress,
            stop=stop,
            verify=verify,
        )
    rate = report.made / report.seconds if report.seconds else 0.0
    lines = [f"{report.made} variations in {report.out} ({rate:.1f} images/s, engine {report.engine})."]
    if report.kept:
        lines.append(f"{report.kept} were there already.")
    if report.failed:
        lines.append(f"{len(report.failed)} failed:")
        lines += [f"  {row.key}: {row.error}" for row in report.failed[:SHOWN_FAILURES]]
        if len(report.failed) > SHOWN_FAILURES:
            lines.append(f"  and {len(report.failed) - SHOWN_FAILURES} more, all in the manifest.")
    data = {
        "passed_over": report.passed_over,
        "out": report.out,
        "total": report.total,
        "made": report.made,
        "kept": report.kept,
        "changes": report.changes,
        "failed": [{"key": row.key, "variant": row.variant, "error": row.error} for row in report.failed],
        "seconds": report.seconds,
        "images_per_second": rate,
        "engine": report.engine,
        "settings": _as_json(report.settings),
    }
    return frame.Result(data, lines, report.exit_code)


def _interval(text: str) -> tuple[float, float]:
    """`0.2:0.8` -> (0.2, 0.8); whether they are in range is for the settings to say."""
    try:
        low, high = map(float, text.split(":"))
    except ValueError:
        raise UsageError(f"{text!r} is no interval of noise levels.", "Give two numbers from 0 to 1: 0.2:0.8") from None
    return low, high


def _plain(source: Path) -> Path:
    """`./data/`, `data` and `.` all name a folder; the default output lies beside it."""
    return source.resolve() if source.name in ("", "..") else source


def _as_json(settings: Any) -> dict[str, Any]:
    return asdict(settings) | {"size": str(settings.size)}


def _estimated(source: Path, out: Path, settings: Any, part: Any, threads: int | None) -> frame.Result:
    from diffclean.variation.estimate import estimate

    found = estimate(source, out, settings, shard=part, threads=threads)
    megabytes = found.bytes / 1e6
    lines = [
        f"{found.images} images, {found.variations} variations, {found.already_made} of them made already.",
        f"About {found.seconds:.0f} s at {found.images_per_second:.1f} images/s (one batch measured, {found.engine}).",
        f"About {megabytes:.1f} MB in {out}. Nothing was written.",
    ]
    return frame.Result(asdict(found) | {"out": out, "settings": _as_json(found.settings)}, lines)
