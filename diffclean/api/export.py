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
    overwrite: bool = False,
    progress: bool | Progress = True,
    stop: Event | None = None,
) -> ExportResult:
    """Compile a variation model into an engine. What is there and fits is kept; every graph is checked against torch.

    Args:
        model: a recipe's name, a model directory, or a model on a hub (owner/name).
        out: the engine directory; None: one in the cache, where `variate` finds it.
        target: what to make beside the ONNX graphs: openvino, tensorrt, tensorrt-rtx; several with commas between, or
            as a sequence.
        precision: "fp32", "fp16" or "bf16"; None: fp16 where the engine is for a GPU, else fp32.
        batch: "MIN:OPT:MAX" images a call that a TensorRT engine accepts; None: one to the model's own.
        size: side of the square that is regenerated, in pixels; None: the model's own.
        arch: compute capabilities of the GPUs to compile for, like "8.6,8.9" (tensorrt-rtx).
        overwrite: replace another engine that is in `out`.
        progress: whether a bar is drawn, or a `Progress` to be told.
        stop: set by someone who wants the work to end.

    Raises:
        UsageError: a setting makes no sense.
        DiffcleanError: the model cannot be exported, or a form cannot be compiled here.
        Interrupted: `stop` was set; the same call goes on.
    """
    from diffclean.export.export import export as work
    from diffclean.export.result import result_of

    asked = request(str(model), out, target, precision, batch, size, arch, overwrite)
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
    overwrite: bool,
) -> Request:
    """What is asked for, from what people write."""
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
    )
