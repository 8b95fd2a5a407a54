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
    rows = [[name, f"{rate:.1f}", f"{rate / local:.2f}x"] for name, rate in figures["rates"].items()]
    driver = figures["driver"]
    lines = [
        f"**Actors** ({result['data']}, {figures['steps']} steps, one window a picture, {figures['runtime']}, batch "
        f"{figures['batch']}, Ray {figures['ray']}; {where(result)}). Each actor has one CPU, and so has the local "
        "process.",
        "",
        *table(["", "images/s", "of the local process"], rows),
        "",
        f"**One driver** recorded {driver['rows_per_second']:,.0f} images a second of actors that made nothing; each "
        f"took {driver['bytes_per_row']:.0f} bytes of the journal.",
    ]
    return "\n".join(lines) + "\n"


def killed_in_bucket(result: dict[str, Any]) -> str:
    """Kills and failing requests survived by a run over tars in a bucket."""
    figures = result["figures"]
    once = "once" if figures["in_manifest_once"] else "NOT once"
    equal = "equal to" if figures["bytes_equal"] else "DIFFERENT FROM"
    seen = "whole" if figures["only_whole_tars_seen"] else "NOT whole"
    waiting = max(kill["images_in_spool"] for kill in figures["kills"])
    each = figures["images"] // figures["tars"]
    return (
        f"**Kills and failing requests** ({result['data']}; {where(result)}): a run from tars to tars on an S3 server "
        f"on the same machine was killed {len(figures['kills'])} times, while {figures['requests_refused']:,} of "
        f"{figures['requests']:,} requests were answered with 503. It has every image {once}, its tars have bytes "
        f"{equal} those of an undisturbed run on disk, and every tar that could be seen after a kill was {seen}. "
        f"At the kills, at most {waiting} images waited to be packed, with {each} in a tar. The peak of memory was "
        f"{figures['peak_memory_mb']['in_bucket']:,.0f} MB, and {figures['peak_memory_mb']['on_disk']:,.0f} MB in the "
        f"run on disk; temporary files took {figures['peak_temporary_files_mb']:.1f} MB.\n"
    )


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
    source = f"measured on {count:,} images in a folder (processor time); **assumed** to grow with their number"
    return [
        ["before each run", f"{cpu['listing']:.0f} s for listing", source],
        ["to go on with one", f"{cpu['resume']:.0f} s for the comparison with what is there", source],
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
