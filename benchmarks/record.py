"""Writes the result of a benchmark to one JSON file, with everything that is needed to measure it again.

The file is written to benchmarks/results, or to the folder that the environment variable BENCHMARK_RESULTS names.
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from diffclean.environment import gpus

RESULTS = Path(__file__).parent / "results"
_LIBRARIES = ("diffclean", "torch", "diffusers", "onnx", "onnxruntime", "openvino", "numpy", "pillow")
_WHERE_INSTALLED = ("obstore", "ray", "onnxruntime-gpu", "tensorrt", "tensorrt-rtx", "timm", "triton")


def results_folder() -> Path:
    """Where results go."""
    return Path(os.environ.get("BENCHMARK_RESULTS") or RESULTS)


def write_result(name: str, figures: dict[str, Any], data: str) -> Path:
    """Write `<name>.json` into the results' folder.

    Args:
        name: of the file.
        figures: what was measured, and with which settings and seeds.
        data: which images, in words.
    """
    path = results_folder() / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "command": " ".join([Path(sys.executable).name, *_without_folders(sys.argv)]),
        "commit": commit(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "data": data,
        "machine": machine(),
        "versions": _versions(),
        "figures": figures,
    }
    path.write_text(json.dumps(content, indent=2) + "\n")
    print(f"wrote {path}")
    return path


def machine() -> dict[str, Any]:
    """Processor, cores in use, memory; GPU where there is one."""
    model = platform.processor()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    card = gpus()[0] if gpus() else None
    told = {"gpu": f"{card.name}, compute capability {card.capability_text}", "gpus": len(gpus())} if card else {}
    return {
        **told,
        "processor": model,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory / 2**30, 1),
        "load_average_at_end": [round(load, 2) for load in os.getloadavg()],
    }


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "none"
    for name in _WHERE_INSTALLED:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def commit() -> str:
    """The commit that is measured, and whether files differ from it."""
    here = Path(__file__).parent
    result = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=False)
    changed = subprocess.run(["git", "diff", "--quiet", "HEAD"], cwd=here, check=False).returncode
    return (result.stdout.strip() or "unknown") + (" with changes" if changed else "")


def _without_folders(arguments: list[str]) -> list[str]:
    """Absolute paths say nothing to others: keep their last part, also in NAME=PATH:PATH."""
    return [re.sub(r"(?<![^=:])/(?:[^=:/]*/)*([^=:/]*)", r"\1", argument) for argument in arguments]


class Pieces:
    """Figures that are kept one by one as they are made: a run that was stopped goes on with what is missing.

    Args:
        path: a JSON file.
        settings: what decides the figures; pieces made with others are thrown away.
    """

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        self.path, self.settings = path, json.loads(json.dumps(settings, default=str))
        self.made: dict[str, Any] = {}
        if path.exists():
            kept = json.loads(path.read_text())
            if kept["settings"] == self.settings:
                self.made = kept["made"]
            else:
                print(f"{path} is of other settings: it begins anew", flush=True)

    def get(self, name: str, make: Callable[[], Any], told: Callable[[Any], object] = lambda made: made) -> Any:
        """A piece: as it was kept, or made now; `told` says what of it is printed."""
        if name not in self.made:
            started = time.monotonic()
            self.made[name] = make()
            self.path.parent.mkdir(parents=True, exist_ok=True)
            temporary = self.path.with_suffix(".part")
            temporary.write_text(json.dumps({"settings": self.settings, "made": self.made}, indent=1, default=str))
            temporary.replace(self.path)
            print(f"{name} ({time.monotonic() - started:.0f} s): {told(self.made[name])}", flush=True)
        return self.made[name]
