"""Renders the table of `cost.py`: what each step of the whole job takes, beside the paper's protocol."""

from __future__ import annotations

from typing import Any

from render_gpu import table, where

_DAY_S = 24 * 3600


def cost_table(result: dict[str, Any]) -> str:
    """Seconds and operations of each step, as multiples of the undefended training, and those of the protocol."""
    figures = result["figures"]
    steps, images = figures["steps"], figures["images"]
    plain = steps[0]
    seconds, flop = (sum(step[name] for step in steps) for name in ("seconds", "flop"))
    rows = [_row(step["name"], step, plain) for step in [*steps, {"name": "**all**", "seconds": seconds, "flop": flop}]]
    rate = plain["flop"] / plain["seconds"]
    protocol = figures["protocol"]
    whole = sum(protocol.values())
    machine = result["machine"]
    busy = ", busy with other work" if machine["load_average_at_end"][1] > machine["cores"] + 0.5 else ""
    lines = [
        f"**What the whole job costs** ({result['data']}, {images:,} images of which {figures['rate']:.0%} have the "
        f"trigger of {figures['attack']}, {figures['listed']:,} listed, seed {figures['seed']}; {where(result)}{busy})."
        " `diffclean clean` at its defaults, without a test set and without a self-test. The first step is what an "
        "undefended training takes. A multiplication and an addition count as two operations; convolutions and linear "
        "layers are counted, forward and backward.",
        "",
        *table(["step", "seconds", "of the training", "TFLOP", "of the training"], rows),
        "",
        f"**The paper's protocol for {images:,} images, computed and not run**: variations at 512 px by Stable "
        "Diffusion, 50 steps with guidance, and a teacher and a student of ResNet-101 at 224 px for 100 epochs.",
        "",
        *table(
            ["step", "TFLOP", "of the whole job above"],
            [_of_protocol(name, count, flop) for name, count in [*protocol.items(), ("**all**", whole)]],
        ),
        "",
        f"At the {rate / 1e9:.0f} GFLOP/s that the first step of the job reached on this machine, it would take "
        f"{whole / rate / _DAY_S:,.0f} days.",
    ]
    return "\n".join(lines) + "\n"


def _row(name: str, step: dict[str, Any], plain: dict[str, Any]) -> list[str]:
    times = [f"{step[each] / plain[each]:.2f}x" for each in ("seconds", "flop")]
    return [name, f"{step['seconds']:.0f}", times[0], f"{step['flop'] / 1e12:,.1f}", times[1]]


def _of_protocol(name: str, count: int, flop: int) -> list[str]:
    return [name, f"{count / 1e12:,.0f}", f"{count / flop:,.1f}x"]
