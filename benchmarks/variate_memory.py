"""Peak memory of `variate` on few images and on many: the difference is what the length of a data set costs.

python benchmarks/variate_memory.py --images FOLDER_OF_32PX_IMAGES --few 500 --many 50000
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from record import write_result

from diffclean.data.sources import ImageFolder


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
            count = getattr(options, name)
            folder = Path(work) / name
            folder.mkdir()
            for index in range(count):
                os.link(linkable(paths[index % len(paths)], Path(work)), folder / f"{index:06d}.jpg")
            figures[name] = {"images": count, **run(folder, options.engine)}
            print(figures[name], flush=True)
    figures["difference_mb"] = figures["many"]["peak_mb"] - figures["few"]["peak_mb"]
    write_result("variate_memory", figures, "CIFAR-10 training images (JPEG-coded copies), 32 px")


def linkable(path: Path, work: Path) -> Path:
    """The image itself, or a copy on the disk of the work folder, which hard links need."""
    if path.stat().st_dev == work.stat().st_dev:
        return path
    copy = work / "copies" / str(abs(hash(path)))
    if not copy.exists():
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes(path.read_bytes())
    return copy


def run(folder: Path, engine: str) -> dict[str, Any]:
    """One whole process; its peak resident memory as the kernel counted it."""
    command = [sys.executable, "-c", "import sys; from diffclean.cli.main import main; sys.exit(main())"]
    command += ["variate", str(folder), "--steps", "1", "--engine", engine, "--json", "--quiet"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        result = json.loads(process.stdout.read())
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0 or result["made"] != result["total"]:
        raise SystemExit(f"variate ended with {process.returncode}: {result}")
    return {"peak_mb": usage.ru_maxrss / 1024, "images_per_second": result["images_per_second"]}


if __name__ == "__main__":
    main()
