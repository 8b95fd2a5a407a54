"""Measure time and peak memory for many images: listing them, a dry run, and a resume with everything done.

A dry run loads the model and runs one batch, so it takes at least what the libraries take that do this.
The images are one tiny PNG file under many names (hard links) in a few folders, and so are their variations. The
benchmark therefore measures the work on names, dates, sizes, the journal and the manifest, not on pixels. Each step
runs in a process of its own, and the kernel counts its peak resident memory.

python benchmarks/many_images.py --count 1000000 --work FOLDER_ON_A_REAL_DISK
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import io
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from record import write_result

from diffclean.data.atomic import make_folders
from diffclean.data.folder import ImageFolder
from diffclean.data.keys import variation_name
from diffclean.data.manifest import Row, rows_as_lines
from diffclean.data.survey import Survey

FOLDERS = 8
TARGET_MB = 500
LINKS_EACH = 30_000
"""Of one file: file systems allow some 32,000 to 65,000."""
VARIATE = "import sys; from diffclean.cli.main import main; sys.exit(main())"
STEPS = ("import_torch", "listing", "dry_run", "resume")
"""The first does nothing else, and says what a step that runs the model takes before it has seen an image."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--work", type=Path, help="The place where folders are made and removed.  [default: TMPDIR]")
    parser.add_argument("--engine", default="micro")
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    parser.add_argument("--images", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        print(json.dumps(measured(options)))
        return
    with tempfile.TemporaryDirectory(dir=options.work) as name:
        options.images = Path(name) / "images"
        started = time.monotonic()
        size, digest = generate(options.images, options.count, lambda key: key)
        figures: dict[str, Any] = {"images": options.count, "folders": FOLDERS, "target_mb": TARGET_MB}
        figures["generating_s"] = round(time.monotonic() - started, 1)
        figures["steps"] = {step: in_a_process(step, options) for step in STEPS[:3]}
        pretend_done(options, size, digest)
        figures["steps"]["resume"] = in_a_process("resume", options)
    figures["within_target"] = all(step["peak_mb"] <= TARGET_MB for step in figures["steps"].values())
    write_result("many_images", figures, f"{options.count} names of one generated 8 px PNG")


def generate(root: Path, count: int, name: Callable[[str], str]) -> tuple[int, str]:
    """Make `count` images below `root`, one file in many places; returns its size and sha256."""
    file = io.BytesIO()
    Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).save(file, "PNG")
    first = Path()
    for number, key in enumerate(keys(count)):
        path = root / name(key)
        if number % LINKS_EACH == 0:
            make_folders(path.parent)
            path.write_bytes(file.getvalue())
            first = path
            continue
        if number % (count // FOLDERS + 1) == 0:
            make_folders(path.parent)
        os.link(first, path)
    return len(file.getvalue()), hashlib.sha256(file.getvalue()).hexdigest()


def keys(count: int) -> Iterator[str]:
    """`class-0/0000000.png` and so on, sorted."""
    each = count // FOLDERS + 1
    return (f"class-{number // each}/{number:07d}.png" for number in range(count))


def pretend_done(options: argparse.Namespace, size: int, digest: str) -> None:
    """Begin a run in earnest on one image, then leave what a run over all would have left: images and journal."""
    out = output(options)
    first = next(keys(options.count))
    few = options.images.with_name("few")
    (few / first).parent.mkdir(parents=True)
    os.link(options.images / first, few / first)
    subprocess.run(
        [sys.executable, "-c", VARIATE, *arguments(few, out, options)], check=True, stdout=subprocess.DEVNULL
    )
    values = json.loads((out / "journal.jsonl").read_text())
    (out / "journal.jsonl").unlink()
    for path in out.rglob("*.png"):
        path.unlink()
    generate(out, options.count, lambda key: variation_name(key, 0, "png"))
    with (out / "journal.jsonl").open("ab") as journal:
        for key in keys(options.count):
            found = (options.images / key).lstat()
            label = key.partition("/")[0]
            values |= {"key": key, "output": variation_name(key, 0, "png"), "label": label, "source_label": label}
            values |= {"output_bytes": size, "output_sha256": digest}
            values["source_stamp"] = f"{found.st_size}:{found.st_mtime_ns}"
            journal.write(rows_as_lines([Row(**values)]))


def in_a_process(step: str, options: argparse.Namespace) -> dict[str, Any]:
    """One step; its seconds, and the peak of its resident memory."""
    command = [sys.executable, __file__, "--step", step, "--images", str(options.images), "--engine", options.engine]
    found: dict[str, Any] = json.loads(
        subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout.splitlines()[-1]
    )
    print(step, found, flush=True)
    return found


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """Do a step, in this process."""
    started, before = time.monotonic(), time.process_time()
    found: dict[str, Any] = {}
    if options.step == "import_torch":
        importlib.import_module("torch")
    elif options.step == "listing":
        found["images"] = Survey(ImageFolder(options.images)).count
    else:
        from diffclean.cli.main import main as diffclean

        dry_run = ["--dry-run"] if options.step == "dry_run" else []
        code = diffclean([*arguments(options.images, output(options), options), *dry_run])
        if code != 0:
            raise SystemExit(f"{options.step} ended with {code}.")
        if options.step == "resume" and "torch" in sys.modules:
            raise SystemExit("The resumed run found something to do, so it did not find what was pretended.")
    found |= {"seconds": round(time.monotonic() - started, 1), "cpu_s": round(time.process_time() - before, 1)}
    return found | {"peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)}


def output(options: argparse.Namespace) -> Path:
    """Of the run."""
    return Path(options.images.with_name("out"))


def arguments(source: Path, out: Path, options: argparse.Namespace) -> list[str]:
    """Of `variate`."""
    settings = ["--engine", options.engine, "--steps", "1", "--processes", "1"]
    return ["variate", str(source), "-o", str(out), *settings, "--json", "--quiet"]


if __name__ == "__main__":
    main()
