"""`diffclean.variate`."""

from __future__ import annotations

from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

from diffclean.api.common import AnyPath, data_path_of, following
from diffclean.errors import UsageError
from diffclean.progress import Progress
from diffclean.variation import defaults

if TYPE_CHECKING:
    from diffclean.execution.ray_cluster import OnRay
    from diffclean.variation.settings import Settings
    from diffclean.variation.variate import VariateResult


def variate(
    source: AnyPath,
    out: AnyPath | None = None,
    *,
    engine: str = defaults.ENGINE,
    runtime: str = defaults.RUNTIME,
    precision: str | None = None,
    steps: int | None = None,
    strength: float | None = None,
    guidance: float | None = None,
    guidance_interval: tuple[float, float] = defaults.GUIDANCE_INTERVAL,
    scheduler: str | None = None,
    variations: int = defaults.VARIATIONS,
    seed: int = defaults.SEED,
    batch: int | None = None,
    size: str | int = defaults.SIZE,
    fit: str = defaults.FIT,
    detail: int | None = None,
    format: str = defaults.FORMAT,
    color_transfer: str = defaults.COLOR_TRANSFER,
    min_similarity: float | None = None,
    labels: str = defaults.LABELS,
    pixel_limit: int = defaults.PIXEL_LIMIT,
    byte_limit: int = defaults.BYTE_LIMIT,
    time_limit_s: int = defaults.TIME_LIMIT_S,
    full_names: bool = defaults.FULL_NAMES,
    label_from: str | None = None,
    to: str | None = None,
    shard: str | None = None,
    verify: bool = False,
    processes: int | None = None,
    workers: int | None = None,
    threads: int | None = None,
    executor: str = defaults.EXECUTOR,
    ray_address: str = defaults.RAY_ADDRESS,
    num_gpus: float | None = None,
    ray_wait_s: float = defaults.RAY_WAIT_S,
    progress: bool | Progress = True,
    stop: Event | None = None,
) -> VariateResult:
    """Regenerate every image below a folder with an image-variation model.

    The variations are written to `out` in the same folders. To continue a run that was stopped, make the same call
    again.

    Args:
        source: a folder of images, or a data set in another format of docs/formats.md, also in a bucket
            (`s3://bucket/folder`, see docs/buckets.md).
        out: the folder to write, also in a bucket; None stands for `source` with `-variations` added to its name.
        engine: the name of a recipe, an engine directory, or a model directory that `pretrain` wrote.
        runtime: the runtime that runs the engine; "auto" takes the best one that works.
        precision: "fp32", "fp16" or "bf16"; None stands for the runtime's best.
        steps: the number of denoising steps; None stands for the engine's. The same holds for `strength`, `guidance`,
            `scheduler` and `batch`.
        strength: in (0, 1], how far a variation may differ from its source.
        guidance: the scale of classifier-free guidance; 1 turns it off.
        guidance_interval: the lowest and the highest noise level at which guidance is on; 1 is pure noise.
        scheduler: the numerical method of the denoising steps.
        variations: the number of variations of each image.
        seed: the seed of the run; the seed of each image is derived from it and the image's key.
        batch: the number of images or windows in a batch of the engine.
        size: the size of the variations: "source", "native", or the longer side in pixels.
        fit: how an image is made to fit the model's square: "squash", "crop" or "pad".
        detail: the longer side to which an image is reduced, in pixels. If it is larger than the engine's square, the
            image is regenerated in overlapping windows. None stands for the engine's.
        format: the file format of the variations: "png", "webp" or "jpeg".
        color_transfer: "none", "mean-std" or "lab": which colour statistics of the source, which is suspect, are
            copied.
        min_similarity: the similarity that a variation must have to its source, above 0 and up to 1. Others are made
            again with another seed, and are then listed as filtered and not written (docs/families.md). None stands for
            no such gate.
        labels: the labels of the variations: "keep" (those of the source, which are suspect), "none", or the file of a
            classifier that labels each variation.
        pixel_limit: the largest image to decode, in pixels.
        byte_limit: the largest file to read, in bytes.
        time_limit_s: the processor time in which an image must be decoded, in seconds.
        full_names: whether names keep the extension of the original, so that 1.jpg and 1.png can be in the same folder.
        label_from: where the labels come from: "folder", "subfolder", or a table below `source`; for other formats see
            docs/formats.md. None stands for the first folder, or for the usual place of another format.
        to: the format of `out`: "folder", "webdataset", ...; None stands for that of `source`.
        shard: "I/N" for only part I of N.
        verify: whether a resumed run compares every original and every variation with its recorded sha256, in place of
            its size and date.
        processes: the number of processes that share the cores; None stands for the fastest for this machine.
        workers: the number of threads that read and write; None stands for one for each core.
        threads: the number of threads of the engine; None stands for all cores.
        executor: where the work is done: "local" for this machine, or "ray" for a Ray cluster (docs/scale.md). On a
            cluster, `processes` is the largest number of actors (None: as many as it holds), `threads` is the number of
            CPUs of each actor (None: 1), and `workers` are those of each actor.
        ray_address: the cluster: "auto" for the one that runs on this machine or that RAY_ADDRESS names, "local" for
            one that is started for this run, or host:port.
        num_gpus: the number of GPUs of each actor, such as 1, 0.5 or 0; None stands for 1 if a node of the cluster has
            a GPU, else 0.
        ray_wait_s: how long to wait for a node that is large enough, in seconds, if an autoscaler starts it on demand.
        progress: whether a bar is drawn, or a `Progress` to report to.
        stop: set this event to stop the run.

    Raises:
        UsageError: a setting is out of range.
        DiffcleanError: the engine or the data set cannot be used.
        Interrupted: `stop` was set; the same call continues.
    """
    from diffclean.data.shard import Shard
    from diffclean.variation.variate import Concurrency
    from diffclean.variation.variate import variate as work

    settings = settings_of(
        engine=engine,
        runtime=runtime,
        precision=precision,
        steps=steps,
        strength=strength,
        guidance=guidance,
        guidance_interval=guidance_interval,
        scheduler=scheduler,
        variations=variations,
        seed=seed,
        batch=batch,
        size=size,
        fit=fit,
        detail=detail,
        format=format,
        color_transfer=color_transfer,
        min_similarity=min_similarity,
        labels=labels,
        pixel_limit=pixel_limit,
        byte_limit=byte_limit,
        time_limit_s=time_limit_s,
        full_names=full_names,
        label_from=label_from,
    )
    folder = data_path_of(source)
    part = Shard.parse(shard) if shard else None
    who = Concurrency(processes, workers, threads, on_ray(executor, ray_address, num_gpus, threads, ray_wait_s))
    with following(progress) as shown:
        place = beside(folder) if out is None else data_path_of(out)
        how: dict[str, Any] = {"concurrency": who, "progress": shown, "stop": stop, "verify": verify, "to": to}
        return work(folder, place, settings, shard=part, **how)


def settings_of(*, size: str | int, fit: str, format: str, color_transfer: str, **others: Any) -> Settings:
    """The arguments of a run as `Settings`."""
    from diffclean.data.encode import ImageFormat
    from diffclean.data.fit import Fit, OutputSize
    from diffclean.variation.color import ColorTransfer
    from diffclean.variation.settings import Settings

    return Settings(
        size=OutputSize.parse(str(size)),
        fit=_one_of(Fit, "fit", fit),
        format=_one_of(ImageFormat, "format", format),
        color_transfer=_one_of(ColorTransfer, "color_transfer", color_transfer),
        **others,
    )


def on_ray(
    executor: str, ray_address: str, num_gpus: float | None, threads: int | None, ray_wait_s: float
) -> OnRay | None:
    """The cluster that the arguments of a run name; None stands for this machine.

    Raises:
        UsageError: there is no such executor, or the arguments of a cluster are given without it.
    """
    from diffclean.execution.ray_cluster import OnRay

    if executor == "ray":
        return OnRay(ray_address, num_gpus, threads or 1, ray_wait_s)
    if executor != "local":
        raise UsageError(f"`executor` must be local or ray, not {executor!r}.")
    if (ray_address, num_gpus, ray_wait_s) != (defaults.RAY_ADDRESS, None, defaults.RAY_WAIT_S):
        raise UsageError("`ray_address`, `num_gpus` and `ray_wait_s` are for a Ray cluster.", "Add `executor` ray")
    return None


def beside(source: Path, what: str = "variations") -> Path:
    """The default output folder, beside the source; `data`, `./data/` and `.` all name a folder.

    For a file or a pattern, such as `a/x-{000..099}.tar`, it is what the names of the files have in common:
    `a/x-variations`.
    """
    from diffclean.data.address import Address, is_address
    from diffclean.data.registry import stem_of

    stem = stem_of(str(source))
    if is_address(stem):
        if not Address.parse(stem).path:
            raise UsageError(
                f"{stem} is a whole bucket, beside which there is no folder.", "Say where to write: `out`."
            )
        return Path(f"{stem}-{what}")
    source = Path(stem)
    plain = source.resolve() if source.name in ("", "..") else source
    return Path(f"{plain}-{what}")


def _one_of(kinds: Any, name: str, given: str) -> Any:
    try:
        return kinds(given)
    except ValueError:
        known = ", ".join(kind.value for kind in kinds)
        raise UsageError(f"`{name}` must be one of {known}, not {given!r}.") from None
