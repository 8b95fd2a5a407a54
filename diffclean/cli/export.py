"""`diffclean export`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from diffclean.api.export import export, request
from diffclean.cli import frame

if TYPE_CHECKING:
    from diffclean.export.result import ExportResult


@frame.verb("export", writes=True, door=export)
@click.argument("model")
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    help="The engine directory to write.  [default: a directory in the cache]",
)
@click.option(
    "--target",
    help="Which compiled forms to make beside the ONNX graphs: openvino, tensorrt or tensorrt-rtx, separated by "
    "commas.",
)
@click.option(
    "--precision",
    type=click.Choice(["fp32", "fp16", "bf16"]),
    help="The floating-point format that the engine computes in.  [default: fp16 for a GPU, else fp32]",
)
@click.option(
    "--batch",
    metavar="MIN:OPT:MAX",
    help="The smallest, best and largest batch of a TensorRT engine, in images.  [default: 1 to the model's own batch]",
)
@click.option(
    "--size",
    type=click.IntRange(1),
    help="The side of the square that the engine regenerates, in pixels.  [default: the model's own]",
)
@click.option(
    "--arch",
    help="The compute capabilities of the GPUs to compile for (tensorrt-rtx only), for example 8.6,8.9.  [default: 8.0 "
    "and newer]",
)
@click.option(
    "--weights",
    type=click.Choice(["int8", "fp8"]),
    help="Store the large weights of the denoiser in eight bits; the engine still computes in the precision. Saves "
    "memory on a GPU; no GPU has run such an engine yet, see docs/engines.md. fp8 needs compute capability 8.9 or "
    "newer.  [default: as the precision]",
)
@click.option("--overwrite", is_flag=True, help="Replace an engine of another model or with other settings in OUT.")
def command(run: frame.Run, model: str, out: Path | None, **options: Any) -> frame.Result:
    """Compile MODEL, an image-variation model, into an engine.

    MODEL is the name of a recipe, a model directory, or a model on a hub (owner/name). Without -o the engine goes into
    the cache, where `variate --engine MODEL` finds it if precision and size have their defaults. With -o, give the
    directory to `variate --engine`. Parts that exist and fit the request are kept; the others are named and made again.
    Every graph is checked against torch.
    """
    if run.dry_run:
        from diffclean.export.export import plan

        return _planned(plan(request(model, out, **options)))
    with run.stopping() as stop:
        return _reported(export(model, out, **options, progress=run.progress, stop=stop))


def _planned(plan: Any) -> frame.Result:
    from diffclean.environment import disk_free_bytes
    from diffclean.families.facts import about, lines_about

    size = (
        "An amount that is not known before the model is fetched"
        if plan.bytes is None
        else f"{'At most' if plan.is_upper_bound else 'About'} {_size(plan.bytes)}"
    )
    free = disk_free_bytes(plan.place)
    facts = about(plan.recipe, plan.options.precision)
    if plan.options.weights:
        facts = replace(facts, run_bytes=None)  # how much less it is depends on the layers
    square = f", {plan.options.image_size} px" if plan.options.image_size else ""
    stored = f", large weights of the denoiser in {plan.options.weights}" if plan.options.weights else ""
    lines = [*lines_about(facts), f"Graphs in {plan.options.precision}{stored}{square}: {_why(plan.graphs)}"]
    for target, component, why in plan.compiled:
        batch = "" if target == "openvino" else f" for batches of {plan.compiling.batch}"
        lines.append(f"{component or 'every component'} for {target}{batch}: {_why(why)}")
    for target, error in plan.lacking.items():
        lines.append(f"This machine cannot compile for {target}: {error.message} {error.hint}".rstrip())
    lines.append(f"{size} would be written to {plan.place} ({_size(free)} free there). Nothing was written.")
    data = {
        "engine": plan.place,
        "model": facts,
        "precision": plan.options.precision,
        "weights": plan.options.weights,
        "image_size": plan.options.image_size,
        "batch": str(plan.compiling.batch),
        "graphs": {"make": plan.graphs is not None, "why": plan.graphs},
        "compiled": [
            {"target": target, "component": component, "make": why is not None, "why": why}
            for target, component, why in plan.compiled
        ],
        "lacking": {target: error.message for target, error in plan.lacking.items()},
        "bytes": plan.bytes,
        "free_bytes": free,
    }
    return frame.Result(data, lines)


def _why(reason: str | None) -> str:
    if reason is None:
        return "would be kept, because a fitting one exists."
    return f"would be made again: {reason}." if reason else "would be made."


def _reported(made: ExportResult) -> frame.Result:
    lines = []
    for name, graph in made.components.items():
        off = graph.parity["max_relative"]
        lines.append(f"{name:14} onnx          {_size(graph.bytes):>9}, differs from torch by {off:.1e}")
    for each in made.compiled:
        how = "made" if each.made else "kept"
        lines.append(f"{each.component:14} {each.target:13} {_size(each.bytes):>9}, {how}")
    lines.append(f"The engine is in {made.engine}. To use it: diffclean variate DATA --engine {made.engine}")
    return frame.Result(made, lines)


def _size(count: int) -> str:
    power, name = (30, "GiB") if count >= 2**30 else (20, "MiB") if count >= 2**20 else (10, "KiB")
    return f"{count / 2**power:.1f} {name}"
