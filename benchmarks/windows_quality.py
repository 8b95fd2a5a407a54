"""Measure what photographs keep and how much of a trigger passes at several values of `--detail`, to set its default.

    python benchmarks/windows_quality.py --images PHOTOGRAPHS --pictures LOOKS

For every detail and strength:

- PSNR of the variations against their sources, both brought to 256 px, and at the sources' own size;
- how much of a trigger passes: the source is regenerated with and without it, with the same noise, and the difference
  of the two is compared with the trigger (their inner product, over the trigger's own). 1: all of it passes; 0: nothing
  that resembles it. Triggers are drawn on the source at 1/8 of its size, and grow with it: a checkerboard patch in the
  corner, a blend with noise, a sinusoid (the paper's attacks, scaled to the picture).
- windows and CPU seconds a picture, in this process, without reading and writing files.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from record import write_result

from diffclean.data.decode import decode
from diffclean.data.fit import Fit, OutputSize, scaled, shrunk
from diffclean.data.folder import ImageFolder
from diffclean.data.manifest import Row
from diffclean.data.pixels import Pixels
from diffclean.families.seeds import image_seed
from diffclean.variation.picture import Slot
from diffclean.variation.pipeline import Stages, stream
from diffclean.variation.sampler import Sampler, SamplerSettings
from diffclean.variation.settings import Settings, open_for
from diffclean.variation.windows import from_canvas, layout, to_canvas

JUDGED_PX = 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--engine", default="micro")
    parser.add_argument("--count", type=int, default=24, help="the number of photographs, evenly spread")
    parser.add_argument(
        "--least", type=int, default=400, help="use only photographs whose longer side is at least this"
    )
    parser.add_argument("--details", type=int, nargs="+", default=[64, 96, 128, 192, 256, 384, 512])
    parser.add_argument("--strengths", type=float, nargs="+", default=[0.2, 0.5])
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--pictures", type=Path, help="a folder for pictures to look at (they hold the data's images)")
    parser.add_argument("--shown", type=int, default=6, help="the number of photographs that those pictures show")
    parser.add_argument("--name", default="windows_quality", help="the name of the result file")
    options = parser.parse_args()
    photographs = chosen(options.images, options.count, options.least)
    opened = open_for(Settings(engine=options.engine, batch=options.batch), options.threads)
    points = []
    for strength in options.strengths:
        told = SamplerSettings(options.steps, strength, 1.0, "ddim")
        sampler = Sampler(opened.engine, told)
        for detail in options.details:
            points.append(point(sampler, photographs, detail, options.batch) | {"strength": strength})
            print(points[-1], flush=True)
    if options.pictures:
        looks(opened.engine, photographs, options)
    figures = {
        "engine": opened.engine.identity,
        "photographs": len(photographs),
        "longer_side_px": sorted({max(image.shape[:2]) for image in photographs.values()}),
        "steps": options.steps,
        "batch": options.batch,
        "threads": options.threads,
        "points": points,
    }
    write_result(options.name, figures, f"{len(photographs)} photographs of at least {options.least} px")


def chosen(folder: Path, count: int, least: int) -> dict[str, Pixels]:
    """Evenly spread photographs that are large enough, by key."""
    source = ImageFolder(folder)
    images = {item.key: decode(source.read(item)) for item in source.items()}
    large = [key for key, image in images.items() if max(image.shape[:2]) >= least]
    return {key: images[key] for key in large[:: max(1, len(large) // count)][:count]}


def point(generator: Sampler, photographs: dict[str, Pixels], detail: int, batch: int) -> dict[str, float]:
    """Over the photographs at one detail and strength."""
    started = time.process_time()
    made, windows = regenerated(generator, photographs, detail, batch)
    seconds = (time.process_time() - started) / len(made)
    passed = {}
    for name, trigger in TRIGGERS.items():
        marked = {key: trigger(image) for key, image in photographs.items()}
        again, _ = regenerated(generator, marked, detail, batch)
        shares = []
        for key, image in photographs.items():
            added = marked[key].astype(np.float64) - image
            shares.append(((again[key].astype(np.float64) - made[key]) * added).sum() / (added * added).sum())
        passed[f"{name}_passes"] = round(float(np.mean(shares)), 3)
    pairs = [(image, made[key]) for key, image in photographs.items()]
    return {
        "detail": detail,
        "psnr_256px_db": round(float(np.median([psnr(judged(one), judged(other)) for one, other in pairs])), 2),
        "psnr_own_size_db": round(float(np.median([psnr(one, other) for one, other in pairs])), 2),
        **passed,
        "windows": round(windows / len(made), 1),
        "cpu_seconds": round(seconds, 4),
    }


def regenerated(
    generator: Sampler, photographs: dict[str, Pixels], detail: int, batch: int
) -> tuple[dict[str, Pixels], int]:
    """The photographs as `variate` makes them, by key, and the number of windows in all."""
    made: dict[str, Pixels] = {}
    windows = 0

    def prepare(key: str) -> list[Slot]:
        nonlocal windows
        height, width = photographs[key].shape[:2]
        plan = layout(width, height, generator.image_size, detail, Fit.SQUASH)
        row = Row(key, seed=image_seed(0, key, 0))

        def finish(canvas: Pixels) -> Row:
            made[key] = from_canvas(canvas, plan, OutputSize())
            return row

        windows += len(plan.windows)
        return [Slot(row, to_canvas(photographs[key], plan), finish, plan.own, plan.windows)]

    stream(list(photographs), Stages(prepare, generator, None, lambda rows: None), batch, workers=1)
    return made, windows


def judged(image: Pixels) -> Pixels:
    height, width = image.shape[:2]
    return shrunk(image, *scaled(width, height, JUDGED_PX))


def psnr(first: Pixels, second: Pixels) -> float:
    return float(10 * np.log10(255**2 / np.mean((first.astype(np.float64) - second) ** 2)))


def patch(image: Pixels) -> Pixels:
    """A 3x3 checkerboard on a 32 px picture's corner, grown with the picture."""
    marked, cell = image.copy(), max(1, max(image.shape[:2]) // 32)
    height, width = image.shape[:2]
    for row in range(3):
        for column in range(3):
            top, left = height - (row + 2) * cell, width - (column + 2) * cell
            marked[top : top + cell, left : left + cell] = 255 * ((row + column) % 2 == 0)
    return marked


def blend(image: Pixels) -> Pixels:
    """A fifth of a noise picture of 32 px, grown with the picture."""
    height, width = image.shape[:2]
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype(np.uint8)
    grown = np.asarray(Image.fromarray(noise).resize((width, height), Image.Resampling.NEAREST))
    return np.rint(0.8 * image + 0.2 * grown).astype(np.uint8)


def sinusoid(image: Pixels) -> Pixels:
    """Six waves across, amplitude 20 (SIG)."""
    wave = 20 * np.sin(2 * np.pi * 6 * np.arange(image.shape[1]) / image.shape[1])
    return np.rint(image + wave[None, :, None]).clip(0, 255).astype(np.uint8)


TRIGGERS: dict[str, Callable[[Pixels], Pixels]] = {"patch": patch, "blend": blend, "sinusoid": sinusoid}


def looks(engine: object, photographs: dict[str, Pixels], options: argparse.Namespace) -> None:
    """A strip a photograph and strength: the source, then each detail."""
    options.pictures.mkdir(parents=True, exist_ok=True)
    for strength in options.strengths:
        sampler = Sampler(engine, SamplerSettings(options.steps, strength, 1.0, "ddim"))  # type: ignore[arg-type]
        shown = dict(list(photographs.items())[: options.shown])
        made = [regenerated(sampler, shown, detail, options.batch)[0] for detail in options.details]
        for key, image in shown.items():
            name = f"{Path(key).stem}-{max(image.shape[:2])}px-strength-{strength:g}.png"
            strip = np.concatenate([image, *(each[key] for each in made)], axis=1)
            Image.fromarray(strip).save(options.pictures / name)


if __name__ == "__main__":
    main()
