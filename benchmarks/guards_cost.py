"""Measure what the guards against hostile images cost, as a share of the processor time of `variate`.

Per image, the guards are: opening the file below its folder without following links, recognising the format, the
limits on pixels, scans, segments, chunks and bytes in flight, and the check that the variation stays in its folder. A
guarded image is compared with one that is read with `Path.read_bytes` and decoded by Pillow alone, so the difference
also contains the conversion of colours, which is not a guard: the real share is smaller. Per run, the guards are the
hashes and the checks of the graphs of the engine.

All of them are measured in turn, round by round, because the machine may have other work. Only processor time counts.

python benchmarks/guards_cost.py --images 32 --rounds 3
"""

from __future__ import annotations

import argparse
import io
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps
from record import write_result

import diffclean
from diffclean.data.atomic import contained
from diffclean.data.decode import decoded
from diffclean.data.folder import ImageFolder
from diffclean.data.item import Item
from diffclean.engine.manifest import read_engine_manifest

_KINDS: dict[str, tuple[tuple[int, int], str, dict[str, Any]]] = {
    "PNG, 32 px": ((32, 32), "png", {}),
    "JPEG, 64 px": ((64, 64), "jpg", {"quality": 90}),
    "JPEG, 500 x 375 px": ((500, 375), "jpg", {"quality": 90}),
    "JPEG, 500 x 375 px, progressive": ((500, 375), "jpg", {"quality": 90, "progressive": True}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--images", type=int, default=32, help="the number of small images of each kind; of photographs a quarter"
    )
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        folders = {kind: drawn(Path(work) / str(number), kind, options.images) for number, kind in enumerate(_KINDS)}
        diffclean.variate(
            folders["PNG, 32 px"] / "in", Path(work) / "first", progress=False
        )  # loads what is loaded once
        found = {kind: measured(folder, options.rounds) for kind, folder in folders.items()}
        figures = {"images": options.images, "rounds": options.rounds, "kinds": found, "run": of_a_run()}
    write_result("guards_cost", figures, "photograph-like images made in the script")


def drawn(folder: Path, kind: str, count: int) -> Path:
    """A folder of smooth images with some noise, which JPEG compresses as it does photographs."""
    (width, height), extension, how = _KINDS[kind]
    count = count if width < 100 else max(1, count // 4)
    (folder / "in" / "class").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8)).resize(
            (width, height), Image.Resampling.BICUBIC
        )
        pixels = np.asarray(coarse) + rng.normal(0, 6, (height, width, 3))
        image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
        image.save(folder / "in" / "class" / f"{number:03d}.{extension}", **how)
    return folder


def measured(folder: Path, rounds: int) -> dict[str, float]:
    """Seconds of processor time for each image, the middle of all rounds, and the share of the guards."""
    source = ImageFolder(folder / "in")
    items = list(source.items())
    found: dict[str, list[float]] = {"variate": [], "guarded": [], "bare": []}
    for number in range(rounds):
        out = folder / f"out{number}"
        run = partial(diffclean.variate, folder / "in", out, progress=False, processes=1, threads=1)
        found["variate"].append(seconds(run))
        found["guarded"].append(seconds(partial(_each, partial(guarded, source, out=out), items)))
        found["bare"].append(seconds(partial(_each, partial(bare, folder / "in", out=out), items)))
    each = {f"{name}_s": statistics.median(times) / len(items) for name, times in found.items()}
    differences = [a - b for a, b in zip(found["guarded"], found["bare"], strict=True)]
    each["guards_s"] = statistics.median(differences) / len(items)
    return each | {"share": each["guards_s"] / each["variate_s"]}


def _each(work: Callable[[Item], object], items: list[Item]) -> None:
    for item in items:
        work(item)


def seconds(work: Callable[[], object]) -> float:
    """Processor time of all threads of this process."""
    before = time.process_time()
    work()
    return time.process_time() - before


def guarded(source: ImageFolder, item: Item, out: Path) -> Path:
    """Read and decode an image as `variate` does, and find the place of its variation."""
    with decoded(source.read(item)):
        return contained(out, item.key)


def bare(folder: Path, item: Item, out: Path) -> Path:
    """The same without any check."""
    with Image.open(io.BytesIO((folder / item.key).read_bytes())) as image:
        np.array(ImageOps.exif_transpose(image).convert("RGB"))
    return out / item.key


def of_a_run() -> dict[str, float]:
    """Seconds of processor time that the checks of the engine take once for each run, however many images it has."""
    from diffclean.export.cache import cached_engine
    from diffclean.families.registry import recipe_for

    engine = cached_engine(recipe_for("micro"))
    manifest = read_engine_manifest(engine)
    return {
        "manifest_s": seconds(lambda: read_engine_manifest(engine)),
        "hashes_s": seconds(lambda: manifest.changed(engine)),
        "graphs_s": seconds(lambda: manifest.check_graphs(engine)),
    }


if __name__ == "__main__":
    main()
