"""How benchmarks write what they measured: one JSON file, with all that is needed to measure it again."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
_LIBRARIES = ("diffclean", "torch", "diffusers", "onnx", "onnxruntime", "openvino", "numpy", "pillow")


def write_result(name: str, figures: dict[str, Any], data: str) -> Path:
    """Write `results/<name>.json`.

    Args:
        name: of the file.
        figures: what was measured, and with which settings and seeds.
        data: which images, in words.
    """
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    content = {
        "command": " ".join([Path(sys.executable).name, *_without_folders(sys.argv)]),
        "commit": _commit(),
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
    """Processor, cores in use, memory."""
    model = platform.processor()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
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
    return found


def _commit() -> str:
    here = Path(__file__).parent
    result = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=False)
    changed = subprocess.run(["git", "diff", "--quiet", "HEAD"], cwd=here, check=False).returncode
    return (result.stdout.strip() or "unknown") + (" with changes" if changed else "")


def _without_folders(arguments: list[str]) -> list[str]:
    """Absolute paths say nothing to others: keep their last part."""
    return [Path(argument).name if argument.startswith("/") else argument for argument in arguments]
