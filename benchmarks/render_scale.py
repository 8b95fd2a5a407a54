"""The tables of docs/scale.md: actors beside the local executor, and the plan for a billion images."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from render_gpu import table, where

from diffclean.data.division import MOST_IMAGES

RESULTS = Path(__file__).parent / "results"
IMAGES = 10**9
EACH = 10**6
"""The images of one run in the plan."""
MACHINES = (10, 100, 1000)


def actors(result: dict[str, Any]) -> str:
    """Images per second with actors, and rows per second of the driver."""
    figures = result["figures"]
    local = figures["rates"]["local"]
    names = {"1 actors": "1 actor"}
    rows = [
        [names.get(name, name), f"{rate:.1f}", f"{rate / local:.2f}x", f"{figures['busy'][name]:.0%}"]
        for name, rate in figures["rates"].items()
    ]
    driver = figures["driver"]
    lines = [
        f"**Actors** ({result['data']}, {figures['steps']} steps, one window a picture, {figures['runtime']}, batch "
        f"{figures['batch']}, Ray {figures['ray']}; {where(result)}). Each actor counts as one CPU, and the "
        "local process has one engine thread; more than two of them share the cores. *Busy* is the part of the time in "
        "which the engines worked, each from its start to its last batch. What an actor lacks is its start, in which "
        "it imports torch and reads its first images; the runs took less than a minute.",
        "",
        *table(["", "images/s", "of the local process", "busy"], rows),
        "",
        f"**One driver** recorded {driver['rows_per_second']:,.0f} images a second of actors that made nothing; each "
        f"took {driver['bytes_per_row']:.0f} bytes of the journal.",
    ]
    return "\n".join(lines) + "\n"


def plan(result: dict[str, Any]) -> str:
    """What a billion images would take, computed from what was measured."""
    figures = result["figures"]
    name, rate = max(
        ((name, rate) for name, rate in figures["median"].items() if name.startswith("variate ") and "500px" in name),
        key=lambda each: each[1],
    )
    _, runtime, processes, kind = name.split(" ")
    hours = IMAGES / rate / 3600
    days = " / ".join(f"{hours / 24 / count:,.1f}" for count in MACHINES)
    rows = [
        [
            "one machine",
            f"{rate:.0f} images/s",
            f"measured: {kind} photographs, {figures['steps']} steps, {runtime}, "
            f"{processes} processes; {where(result)}",
        ],
        ["work", f"{hours:,.0f} machine-hours", "computed"],
        [
            f"on {' / '.join(f'{count:,}' for count in MACHINES)} such machines",
            f"{days} days",
            "**assumed**: twice the machines make twice the images, which holds if the disk keeps up",
        ],
        ["cost", f"{hours:,.0f} times the price of such a machine for an hour", "no price is assumed"],
        [
            "runs",
            f"{math.ceil(IMAGES / EACH):,} of {EACH:,} images each",
            "**chosen**: a run lists all its images before it begins",
        ],
        [
            "archives",
            f"{IMAGES // MOST_IMAGES:,} of {MOST_IMAGES:,} images each",
            "the writer's default; as single files it would be a billion",
        ],
        *_of_many_images(),
        *_of_driver(rate),
    ]
    lines = ["**A billion images**, on paper.", "", *table(["", "", "from"], rows)]
    return "\n".join(lines) + "\n"


def _of_many_images() -> list[list[str]]:
    """Of each run: listing, and the comparison with an earlier run."""
    found = _result("many_images")
    if found is None:
        return []
    steps, count = found["figures"]["steps"], found["figures"]["images"]
    cpu = {name: steps[name]["cpu_s"] * EACH / count for name in ("listing", "resume")}
    source = f"measured on {count:,} images in a folder (processor time)"
    source += "; **assumed** to grow with their number" if count < EACH else ""
    return [
        ["before each run", f"{cpu['listing']:.0f} s for listing", source],
        ["to go on with one", f"{cpu['resume']:.0f} s for the comparison with what is there", source],
        *_memory(steps, count),
    ]


def _memory(steps: dict[str, dict[str, Any]], count: int) -> list[list[str]]:
    """The largest resident memory of each step, and what of it is not for the images."""
    if "import_torch" not in steps:
        return []
    peak = {name: step["peak_mb"] for name, step in steps.items()}
    return [
        [
            "memory for this",
            f"{peak['listing']} MB for listing, {peak['resume']} MB for the comparison, {peak['dry_run']} MB for a "
            "dry run",
            f"measured on {count:,} images; a dry run loads the model, and `import torch` alone takes "
            f"{peak['import_torch']} MB",
        ]
    ]


def _of_driver(rate: float) -> list[list[str]]:
    """What limits one driver."""
    found = _result("ray_actors")
    if found is None:
        return [["machines for each driver", "not measured yet", "`benchmarks/ray_actors.py`"]]
    driver = found["figures"]["driver"]
    each = EACH * driver["bytes_per_row"] / 1e9
    return [
        [
            "machines for each driver",
            f"at most {driver['rows_per_second'] / rate:,.0f}",
            f"measured: a driver records {driver['rows_per_second']:,.0f} images/s on one core that it shares",
        ],
        ["journals", f"{each:.2f} GB a run, {each * IMAGES / EACH:,.0f} GB in all", "measured: bytes for an image"],
    ]


def _result(name: str) -> dict[str, Any] | None:
    path = RESULTS / f"{name}.json"
    found: dict[str, Any] | None = json.loads(path.read_text()) if path.exists() else None
    return found
