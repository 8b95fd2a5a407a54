"""A poisoned data set that is small enough to look at, and a run of `variate` over it that is made by hand."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from bright_corner import CLASSES
from PIL import Image

from diffclean.data.folder import ImageFolder
from diffclean.data.manifest import Row, Status, write_manifest
from diffclean.data.run_record import RunRecord, open_run

COUNT = 100
"""Images of a class."""
TRIGGERED = frozenset(f"blue/{index:03d}.png" for index in range(0, COUNT, 5))
"""A fifth of the blue ones are green and have a white corner: what `bright_corner.BrightCorner` falls for."""


def draw_suspects(root: Path, side: int = 16) -> Path:
    """100 images of 16 px in each of three classes; twenty are poisoned."""
    rng = np.random.default_rng(0)
    for number, name in enumerate(CLASSES):
        (root / name).mkdir(parents=True)
        for index in range(COUNT):
            key = f"{name}/{index:03d}.png"
            image = rng.integers(0, 100, (side, side, 3), np.uint8)
            image[:, :, 1 if key in TRIGGERED else 2 - number] += 100
            if key in TRIGGERED:
                image[-2:, -2:] = 255
            Image.fromarray(image).save(root / key)
    return root


def vary_suspects(source: Path, out: Path, variants: int = 2) -> Path:
    """Variations of each image: lighter or darker than it, and without its corner."""
    open_run(out, RunRecord({}, CLASSES, source=str(source)))
    rng = np.random.default_rng(1)
    rows = []
    for item in ImageFolder(source).items():
        (out / item.label).mkdir(exist_ok=True)
        sha256 = hashlib.sha256((source / item.key).read_bytes()).hexdigest()
        for variant in range(variants):
            image = np.asarray(Image.open(source / item.key)).copy()
            image[-2:, -2:] = image[:2, :2]
            output = f"{item.key[:-4]}_v{variant:02d}.png"
            Image.fromarray(np.clip(image + rng.integers(-20, 20), 0, 255).astype(np.uint8)).save(out / output)
            rows.append(Row(item.key, variant, output, item.label, Status.OK, source_sha256=sha256))
    write_manifest(out, rows, class_to_idx=CLASSES)
    return out
