"""How large the images are, how long from `docker run` to the first variation, and how many images an hour they make.

    python benchmarks/container_start.py --photos FOLDER --images cpu=diffclean:cpu cuda=diffclean:cuda

Each run is of a new container without a volume for the cache, on photographs in a folder of its own. `cold` empties the
page cache first, which only root may: nothing of the image's files is in memory then.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image
from record import write_result

DROP = Path("/proc/sys/vm/drop_caches")
WAIT_S = 300
# What PyPI's torch brings for GPUs, and a torch from PyTorch's CPU index does not.
CUDA_BYTES = (
    "cd /opt/diffclean/lib/python3*/site-packages; "
    "du -scb nvidia triton cuda* torch/lib/*cuda* torch/lib/libtorch_nvshmem* 2>/dev/null | tail -1 | cut -f1"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--images", nargs="+", required=True, metavar="NAME=TAG")
    parser.add_argument("--docker", default="docker")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--count", type=int, default=64, help="the number of photographs per run")
    parser.add_argument(
        "--steps", type=int, nargs="+", default=[1, 2, 4, 8], help="the numbers of steps at which rates are measured"
    )
    parser.add_argument("--rate-count", type=int, default=512, help="the number of photographs to measure a rate on")
    options = parser.parse_args()
    photos = sorted(path for path in options.photos.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    longest = max(max(Image.open(photo).size) for photo in photos)
    figures: dict[str, Any] = {"runs": options.runs, "longest_side_px": longest, "images": {}}
    for named in options.images:
        name, _, tag = named.partition("=")
        found = measured(options.docker, tag, photos[: options.count], options.runs)
        found["images_per_hour"] = rates(options.docker, tag, photos, options.steps, options.rate_count)
        figures["images"][name] = found
        print(name, json.dumps(found, indent=2))
    write_result("container_start", figures, f"{options.count} photographs a start")


def measured(docker: str, tag: str, photos: list[Path], runs: int) -> dict[str, Any]:
    """Sizes and times of one image."""
    inspected = subprocess.run([docker, "image", "inspect", tag], check=True, capture_output=True, text=True).stdout
    doctor = subprocess.run(
        [docker, "run", "--rm", tag, "doctor", "--json"], check=True, capture_output=True, text=True
    )
    report = json.loads(doctor.stdout)
    shell = [docker, "run", "--rm", "--entrypoint", "sh", tag, "-c", CUDA_BYTES]
    cuda = int(subprocess.run(shell, check=True, capture_output=True, text=True).stdout or 0)

    def variation() -> dict[str, float]:
        return first_variation(docker, tag, photos)

    cold = [after_dropping(variation) for _ in range(runs)] if os.geteuid() == 0 else []
    variation()
    warm = [variation() for _ in range(runs)]
    nothing = [timed([docker, "run", "--rm", "--entrypoint", "true", tag]) for _ in range(runs)]
    version = [timed([docker, "run", "--rm", tag, "--version"]) for _ in range(runs)]
    return {
        "bytes": json.loads(inspected)[0]["Size"],
        "bytes_of_cuda_libraries": cuda,
        "versions": {key: value for key, value in report["packages"].items() if value},
        "runtime": report["auto_runtime"],
        "first_variation_s": spread([run["first"] for run in warm]),
        "whole_run_s": spread([run["whole"] for run in warm]),
        "first_variation_cold_s": spread([run["first"] for run in cold]) if cold else None,
        "of_it": {"an empty container": spread(nothing), "diffclean --version": spread(version)},
    }


def rates(docker: str, tag: str, photos: list[Path], steps: list[int], count: int) -> dict[str, dict[str, float]]:
    """Images an hour by runtime and steps, from files to files; the start is left out."""
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        workspace = filled(Path(folder), (photos * (count // len(photos) + 1))[:count])
        for runtime in [runtime for runtime in ("openvino", "onnxruntime") if works(docker, tag, runtime)]:
            for number in steps:
                command = [*run_in(docker, tag, workspace), "variate", "./data", "--json", "--quiet"]
                command += ["--runtime", runtime, "--steps", str(number), "-o", f"{runtime}-{number}"]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                found.setdefault(runtime, {})[str(number)] = round(json.loads(done.stdout)["images_per_second"] * 3600)
    return found


def works(docker: str, tag: str, runtime: str) -> bool:
    """Whether a runtime is usable in an image."""
    done = subprocess.run([docker, "run", "--rm", tag, "doctor", "--json"], check=True, capture_output=True, text=True)
    return any(each["name"] == runtime and each["usable"] for each in json.loads(done.stdout)["runtimes"])


def filled(workspace: Path, photos: list[Path]) -> Path:
    """A workspace with photographs in `data`."""
    (workspace / "data").mkdir()
    for number, photo in enumerate(photos):
        shutil.copy(photo, workspace / f"data/{number:05}{photo.suffix}")
    return workspace


def run_in(docker: str, tag: str, workspace: Path) -> list[str]:
    """`docker run` on a workspace."""
    return [docker, "run", "--rm", "--user", f"{os.getuid()}:{os.getgid()}", "-v", f"{workspace}:/workspace", tag]


def first_variation(docker: str, tag: str, photos: list[Path]) -> dict[str, float]:
    """Seconds until the first variation is in its place, and until the container has ended."""
    with tempfile.TemporaryDirectory() as folder:
        workspace = filled(Path(folder), photos)
        command = [*run_in(docker, tag, workspace), "variate", "./data"]
        out = workspace / "data-variations"
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not (out.is_dir() and any(out.glob("*_v00.png"))):
            if process.poll() is not None or time.perf_counter() - began > WAIT_S:
                raise SystemExit(f"No variation came: {' '.join(command)}")
            time.sleep(0.01)
        first = time.perf_counter() - began
        if process.wait() != 0:
            raise SystemExit(f"It failed: {' '.join(command)}")
        return {"first": first, "whole": time.perf_counter() - began}


def after_dropping(run: Callable[[], dict[str, float]]) -> dict[str, float]:
    """Run with nothing of any file in memory."""
    os.sync()
    DROP.write_text("3")
    return run()


def timed(command: list[str]) -> float:
    """Seconds of a command."""
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def spread(values: list[float]) -> dict[str, float]:
    """Median and extremes."""
    return {
        "median": round(statistics.median(values), 2),
        "least": round(min(values), 2),
        "most": round(max(values), 2),
    }


if __name__ == "__main__":
    main()
