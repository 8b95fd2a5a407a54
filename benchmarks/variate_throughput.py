"""Compare the speed of `variate` with diffusers' own eager loop and with the bare engine: one run, the same weights.

    python benchmarks/variate_throughput.py --small FOLDER_OF_32PX_IMAGES --photos FOLDER_OF_PHOTOS
        --name variate_throughput_defaults
    python benchmarks/variate_throughput.py --small ... --photos ... --steps 8 --detail 64

Three things are timed in turn, several times over, at equal steps and batch:
stock: `MicroPipeline`, the model's modules run eagerly in fp32 in diffusers' own loop, on tensors in memory;
engine: nothing but the engine's components, on tensors in memory, for each runtime;
variate: the whole of it, from files to files.
The last two in one process and in one a core. What processes of `variate` need to start counts, so a few hundred images
are too few to judge several processes by.
Ratios are taken within a round and their median is reported. They compare windows of the engine's own size: a
photograph has several at the default `--detail`, and stock would have to regenerate as many.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import os
import shutil
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from record import write_result

from diffclean.data.decode import decode
from diffclean.data.fit import Fit, to_square
from diffclean.data.folder import ImageFolder
from diffclean.environment import usable_cores
from diffclean.families.base import noise_shapes
from diffclean.families.micro_pipeline import MicroPipeline
from diffclean.families.seeds import noise_for
from diffclean.variation.settings import Opened, Settings, open_for
from diffclean.variation.variate import Concurrency, variate

RUNTIMES = (("openvino", None), ("onnxruntime", None))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", type=Path, required=True, help="images of 32 px")
    parser.add_argument("--photos", type=Path, required=True, help="photographs; they are resized to 500 px")
    parser.add_argument("--images", type=int, default=480, help="the number of small images per round")
    parser.add_argument("--photo-count", type=int, help="the number of photographs per round; the default is --images")
    parser.add_argument("--steps", type=int, help="the number of steps; the default is the engine's")
    parser.add_argument("--detail", type=int, help="px on the longer side; the default is the engine's")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--engine", default="micro")
    parser.add_argument("--name", default="variate_throughput", help="the name of the result file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        folders = {
            "32px": gathered(options.small, Path(work) / "small", options.images, None),
            "500px": gathered(options.photos, Path(work) / "photos", options.photo_count or options.images, 500),
        }
        figures = measure(options, folders, Path(work))
    write_result(options.name, figures, "32 px: CIFAR-10 test images; 500 px: photographs, longest side 500 px")


def gathered(source: Path, target: Path, count: int, longest: int | None) -> Path:
    """`count` images of `source` (repeated if there are fewer), copied, or resized to a longest side and JPEG-coded."""
    target.mkdir()
    folder = ImageFolder(source)
    items = folder.items()
    for index in range(count):
        item = items[index * max(1, len(items) // count) % len(items)]
        if longest is None:
            shutil.copy(item.path, target / f"{index:06d}{item.path.suffix}")
            continue
        image = Image.fromarray(decode(folder.read(item)))
        scale = longest / max(image.size)
        image.resize((round(image.width * scale), round(image.height * scale))).save(target / f"{index:06d}.jpg")
    return target


def measure(options: argparse.Namespace, folders: dict[str, Path], work: Path) -> dict[str, object]:
    """Images per second of everything, round by round."""
    settings = {
        name: Settings(
            engine=options.engine,
            runtime=name,
            precision=precision,
            steps=options.steps,
            batch=options.batch,
            detail=options.detail,
        )
        for name, precision in RUNTIMES
    }
    opened = {name: open_for(each) for name, each in settings.items()}
    counts = sorted({1, int(usable_cores())})
    first = next(iter(opened.values()))
    pipeline = MicroPipeline.from_pretrained(first.recipe.directory)
    pipeline.set_progress_bar_config(disable=True)
    pixels = in_memory(folders["32px"], options.batch, first.engine.manifest.image_size)
    batches = max(2, options.images // options.batch // 2 * 2)
    steps, detail = first.settings.sampler.steps, first.settings.detail
    windows: dict[str, float] = {}
    rounds = []
    for _ in range(options.rounds):
        rates = {"stock": stock_rate(pipeline, pixels, steps, batches, first)}
        for name in opened:
            for processes in counts:
                rates[f"engine {name} {processes}"] = bare_rate(settings[name], pixels, batches, processes)
                for kind, folder in folders.items():
                    out = work / "out"
                    report = variate(folder, out, settings[name], concurrency=Concurrency(processes))
                    rates[f"variate {name} {processes} {kind}"] = report.made / report.seconds
                    windows[kind] = report.windows / report.made
                    shutil.rmtree(out)
        print({key: round(rate, 2) for key, rate in rates.items()}, flush=True)
        rounds.append(rates)
    ratios: dict[str, float] = {}
    for name in opened:
        for processes, kind in itertools.product(counts, folders):
            key = f"variate {name} {processes} {kind}"
            ratios[f"{key} / stock"] = statistics.median(windows[kind] * r[key] / r["stock"] for r in rounds)
            for others in counts:
                ratio = statistics.median(windows[kind] * r[key] / r[f"engine {name} {others}"] for r in rounds)
                ratios[f"{key} / engine {others}"] = ratio
    return {
        "unit": "images per second",
        "steps": steps,
        "detail": detail,
        "windows": windows,
        "batch": options.batch,
        "images": options.images,
        "photographs": options.photo_count or options.images,
        "processes": counts,
        "precision": {name: each.engine.runtime.precision for name, each in opened.items()} | {"stock": "fp32"},
        "median": {key: statistics.median(r[key] for r in rounds) for key in rounds[0]},
        "ratios": ratios,
        "rounds": rounds,
    }


def in_memory(folder: Path, batch: int, size: int) -> torch.Tensor:
    """(B, S, S, 3) uint8."""
    source = ImageFolder(folder)
    squares = [to_square(decode(source.read(item)), size, Fit.SQUASH)[0] for item in source.items()[:batch]]
    return torch.stack([torch.from_numpy(square) for square in squares])


def stock_rate(pipeline: MicroPipeline, pixels: torch.Tensor, steps: int, batches: int, opened: Opened) -> float:
    """Images per second of diffusers' own loop."""
    strength = opened.settings.sampler.strength
    seeds = list(range(len(pixels)))
    pipeline(pixels, seeds, strength, 1)
    batches = max(2, batches // 3)  # it is the slow one
    started = time.monotonic()
    for _ in range(batches):
        pipeline(pixels, seeds, strength, steps)
    return batches * len(pixels) / (time.monotonic() - started)


def bare_rate(settings: Settings, pixels: torch.Tensor, batches: int, processes: int) -> float:
    """Images per second of the engine alone, in processes that share the cores as those of `variate` do."""
    if processes == 1:
        return engine_rate(open_for(settings), pixels, batches)
    cores = sorted(os.sched_getaffinity(0))
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, spawn, initializer=_meet, initargs=(spawn.Barrier(processes),)) as pool:
        shares = [set(cores[index::processes]) for index in range(processes)]
        work = [pool.submit(_bare_share, settings, pixels, batches // processes, share) for share in shares]
        return sum(each.result() for each in work)


def _meet(barrier: Any) -> None:
    globals()["together"] = barrier


def _bare_share(settings: Settings, pixels: torch.Tensor, batches: int, cores: set[int]) -> float:
    os.sched_setaffinity(0, cores)
    torch.set_num_threads(len(cores))
    opened = open_for(settings, len(cores))
    together: Any = globals()["together"]
    together.wait()
    return engine_rate(opened, pixels, batches)


def engine_rate(opened: Opened, pixels: torch.Tensor, batches: int) -> float:
    """Images per second of the engine's components alone."""
    engine, settings = opened.engine, opened.settings.sampler
    noise = noise_for(range(len(pixels)), noise_shapes(engine.manifest.components))
    look = engine.family.look(settings.strength, {port.name for port in engine.manifest.components["unet"].inputs})
    sample = noise["sample"]
    times = torch.full((len(pixels),), 500.0)

    def once(steps: int) -> None:
        condition = engine.family.condition(engine.call, pixels, noise, look)
        for _ in range(steps):
            engine.call("unet", {"sample": sample, "timestep": times, **condition})
        engine.family.decode(engine.call, sample)

    once(1)
    started = time.monotonic()
    for _ in range(batches):
        once(settings.steps)
    return batches * len(pixels) / (time.monotonic() - started)


if __name__ == "__main__":
    main()
