"""`diffclean.variate`."""

from __future__ import annotations

from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

from diffclean.api.common import AnyPath, following, path_of
from diffclean.errors import UsageError
from diffclean.progress import Progress
from diffclean.variation import defaults

if TYPE_CHECKING:
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
    progress: bool | Progress = True,
    stop: Event | None = None,
) -> VariateResult:
    """Regenerate every image below a folder with an image-variation model.

    Variations land in `out` under the same folders. A run that was stopped goes on when the same is called again.

    Args:
        source: a folder of images, or a data set in another format of docs/formats.md.
        out: the folder to write; None: `source` with `-variations` added to its name.
        engine: a recipe's name, an engine directory, or a model directory of `pretrain`.
        runtime: what runs the engine; "auto" takes the best that works here.
        precision: "fp32", "fp16" or "bf16"; None: the runtime's best.
        steps: denoising steps; None: the engine's. The same holds for `strength`, `guidance`, `scheduler`, `batch`.
        strength: in (0, 1], how far a variation is from its source.
        guidance: scale of classifier-free guidance; 1 is off.
        guidance_interval: lowest and highest noise level at which guidance is on; 1 is pure noise.
        scheduler: how the steps are taken.
        variations: how many of each image.
        seed: of the run; each image's own seed follows from it and the image's name.
        batch: images or windows that the engine takes at once.
        size: of what comes out: "source", "native", or the longer side in pixels.
        fit: how an image meets the model's square: "squash", "crop" or "pad".
        detail: longer side at which a picture is looked at, in pixels; more than the engine's square means overlapping
            windows; None: the engine's.
        format: of the files: "png", "webp" or "jpeg".
        color_transfer: "none", "mean-std" or "lab": colour statistics of the (suspect) source are copied.
        labels: of the variations: "keep" (as suspect as the source's), "none", or the file of a classifier that is
            asked about each variation.
        pixel_limit: larger images are not decoded.
        byte_limit: larger files are not read.
        time_limit_s: seconds of processor time to decode one image.
        full_names: keep the original's extension in the name, so that 1.jpg and 1.png can both be there.
        label_from: where labels are: "folder", "subfolder", or a table below `source`; of other formats see
            docs/formats.md; None: the first folder, or the usual place.
        to: the format of `out`: "folder", "webdataset", ...; None: that of `source`.
        shard: "I/N": only the Ith of N parts.
        verify: before going on with an earlier run, compare every original and every variation with its recorded
            sha256, not only with its size and date.
        processes: that share the cores; None: what is quickest here.
        workers: threads that read and write; None: one a core.
        threads: of the engine; None: all cores.
        progress: whether a bar is drawn, or a `Progress` to be told.
        stop: set by someone who wants the run to end.

    Raises:
        UsageError: a setting is out of range.
        DiffcleanError: there is nothing to do it with, or nothing to do it on.
        Interrupted: `stop` was set; the same call goes on.
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
        labels=labels,
        pixel_limit=pixel_limit,
        byte_limit=byte_limit,
        time_limit_s=time_limit_s,
        full_names=full_names,
        label_from=label_from,
    )
    folder = path_of(source)
    part = Shard.parse(shard) if shard else None
    who = Concurrency(processes, workers, threads)
    with following(progress) as shown:
        place = path_of(out) or beside(folder)
        how: dict[str, Any] = {"concurrency": who, "progress": shown, "stop": stop, "verify": verify, "to": to}
        return work(folder, place, settings, shard=part, **how)


def settings_of(*, size: str | int, fit: str, format: str, color_transfer: str, **others: Any) -> Settings:
    """The settings of a run, from what people write."""
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


def beside(source: Path, what: str = "variations") -> Path:
    """Where output goes when nobody says: `data`, `./data/` and `.` all name a folder, and the output lies beside.

    Of a file or a pattern, `a/x-{000..099}.tar`, it is what the files have in common: `a/x-variations`.
    """
    from diffclean.data.registry import stem_of

    source = Path(stem_of(str(source)))
    plain = source.resolve() if source.name in ("", "..") else source
    return Path(f"{plain}-{what}")


def _one_of(kinds: Any, name: str, given: str) -> Any:
    try:
        return kinds(given)
    except ValueError:
        known = ", ".join(kind.value for kind in kinds)
        raise UsageError(f"`{name}` must be one of {known}, not {given!r}.") from None
