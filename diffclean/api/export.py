"""`diffclean.export`."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Event
from typing import TYPE_CHECKING

from diffclean.api.common import AnyPath, following, path_of
from diffclean.progress import Progress

if TYPE_CHECKING:
    from diffclean.export.export import Request
    from diffclean.export.result import ExportResult

TARGET = "onnx"


def export(
    model: str,
    out: AnyPath | None = None,
    *,
    target: str | Sequence[str] = TARGET,
    precision: str | None = None,
    batch: str | None = None,
    size: int | None = None,
    arch: str | None = None,
    weights: str | None = None,
    overwrite: bool = False,
    progress: bool | Progress = True,
    stop: Event | None = None,
) -> ExportResult:
    """Compile a variation model into an engine.

    Parts that exist and fit the request are kept. Every graph is checked against torch.

    Args:
        model: the name of a recipe, a model directory, or a model on a hub (owner/name).
        out: the engine directory to write; None stands for one in the cache, where `variate` finds it.
        target: which compiled forms to make beside the ONNX graphs: openvino, tensorrt, tensorrt-rtx; separated by
            commas, or as a sequence.
        precision: "fp32", "fp16" or "bf16"; None stands for fp16 if the engine is for a GPU, else fp32.
        batch: "MIN:OPT:MAX", the smallest, best and largest batch of a TensorRT engine; None stands for one to the
            model's own.
        size: the side of the square that is regenerated, in pixels; None stands for the model's own.
        arch: the compute capabilities of the GPUs to compile for, such as "8.6,8.9" (tensorrt-rtx only).
        weights: how the large weights of the denoiser are stored, "int8" or "fp8"; None stands for the precision. No
            GPU has run such an engine yet (docs/engines.md).
        overwrite: whether an engine of another model or with other settings in `out` may be replaced.
        progress: whether a bar is drawn, or a `Progress` to report to.
        stop: set this event to stop the work.

    Raises:
        UsageError: a setting is invalid.
        DiffcleanError: the model cannot be exported, or a form cannot be compiled here.
        Interrupted: `stop` was set; the same call continues.
    """
    from diffclean.export.export import export as work
    from diffclean.export.result import result_of

    asked = request(str(model), out, target, precision, batch, size, arch, weights, overwrite)
    with following(progress) as shown:
        return result_of(work(asked, shown, stop))


def request(
    model: str,
    out: AnyPath | None,
    target: str | Sequence[str],
    precision: str | None,
    batch: str | None,
    size: int | None,
    arch: str | None,
    weights: str | None,
    overwrite: bool,
) -> Request:
    """The arguments of an export as a `Request`."""
    from diffclean.engine.tensorrt_targets import Profile, parse_arch
    from diffclean.export.export import Request
    from diffclean.export.forms import parse_targets

    return Request(
        model=model,
        out=path_of(out),
        targets=parse_targets(target if isinstance(target, str) else ",".join(target)),
        precision=precision,
        batch=Profile.parse(batch) if batch else None,
        image_size=size,
        arch=parse_arch(arch) if arch else None,
        overwrite=overwrite,
        weights=weights,
    )
