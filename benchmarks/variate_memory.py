"""Measure the peak memory of `variate` on few and on many images; the difference is the cost of a longer data set.

It is measured with one process and with one process per core. The peaks of several processes are added up.

python benchmarks/variate_memory.py --images FOLDER_OF_32PX_IMAGES --few 500 --many 50000
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from record import write_result

from diffclean.data.folder import ImageFolder
from diffclean.environment import usable_cores

LOOK_S = 0.1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--few", type=int, default=500)
    parser.add_argument("--many", type=int, default=50_000)
    parser.add_argument("--engine", default="micro")
    options = parser.parse_args()
    paths = [item.path for item in ImageFolder(options.images).items()]
    figures: dict[str, Any] = {"steps": 1}
    with tempfile.TemporaryDirectory() as work:
        for name in ("few", "many"):
            folder = Path(work) / name
            folder.mkdir()
            for index in range(getattr(options, name)):
                os.link(linkable(paths[index % len(paths)], Path(work)), folder / f"{index:06d}.jpg")
        figures["runs"] = [measured(Path(work), count, options) for count in sorted({1, int(usable_cores())})]
    write_result("variate_memory", figures, "CIFAR-10 training images (JPEG-coded copies), 32 px")


def measured(work: Path, processes: int, options: argparse.Namespace) -> dict[str, Any]:
    """Both folders in so many processes."""
    found: dict[str, Any] = {"processes": processes}
    for name in ("few", "many"):
        found[name] = {"images": getattr(options, name), **run(work / name, options.engine, processes)}
        print(processes, name, found[name], flush=True)
    return found | {"difference_mb": found["many"]["peak_mb"] - found["few"]["peak_mb"]}


def linkable(path: Path, work: Path) -> Path:
    """The image itself, or a copy on the disk of the work folder, which hard links need."""
    if path.stat().st_dev == work.stat().st_dev:
        return path
    copy = work / "copies" / str(abs(hash(path)))
    if not copy.exists():
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes(path.read_bytes())
    return copy


def run(folder: Path, engine: str, processes: int) -> dict[str, Any]:
    """A whole run; the peak resident memory of its processes, as the kernel counted it."""
    command = [sys.executable, "-c", "import sys; from diffclean.cli.main import main; sys.exit(main())"]
    command += ["variate", str(folder), "-o", f"{folder}-{processes}", "--steps", "1", "--engine", engine]
    command += ["--processes", str(processes), "--json", "--quiet"]
    peaks: dict[int, int] = {}
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, stdout=said)
        while process.poll() is None:
            for each in (process.pid, *children(process.pid)):
                peaks[each] = peak_kb(each) or peaks.get(each, 0)
            time.sleep(LOOK_S)
        said.seek(0)
        result = json.loads(said.read())
    if process.returncode != 0 or result["made"] != result["total"]:
        raise SystemExit(f"variate ended with {process.returncode}: {result}")
    return {"peak_mb": sum(peaks.values()) / 1024, "images_per_second": result["images_per_second"]}


def children(parent: int) -> list[int]:
    """Process ids."""
    try:
        listed = [path.read_text() for path in Path(f"/proc/{parent}/task").glob("*/children")]
    except OSError:
        return []
    return [int(each) for text in listed for each in text.split()]


def peak_kb(process: int) -> int:
    """The most memory that a process has had; 0 where it is gone."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), 0)


if __name__ == "__main__":
    main()
