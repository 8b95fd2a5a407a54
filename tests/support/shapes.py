"""Drawn shapes, as they come and as `variate` would leave them; and networks small enough to learn them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from torch import nn

from diffclean.data.classes import class_to_idx
from diffclean.data.folder import ImageFolder
from diffclean.data.keys import variation_name
from diffclean.data.manifest import Row, write_manifest
from diffclean.data.run_record import RunRecord, open_run


def draw(root: Path, count: int, seed: int, side: int = 16) -> Path:
    """Bars that lie, stand, or fill a square, in random colours, on noise."""
    rng = np.random.default_rng(seed)
    for name in ("lying", "standing", "square"):
        (root / name).mkdir(parents=True)
        for index in range(count):
            image = rng.integers(0, 60, (side, side, 3), np.uint8)
            at, colour = int(rng.integers(2, side - 8)), rng.integers(120, 256, 3, np.uint8)
            rows = slice(at, at + 6) if name == "square" else slice(at, at + 2) if name == "lying" else slice(2, -2)
            columns = (
                slice(at, at + 6) if name == "square" else slice(at, at + 2) if name == "standing" else slice(2, -2)
            )
            image[rows, columns] = colour
            Image.fromarray(image).save(root / name / f"{index:03d}.png")
    return root


def varied(source: Path, out: Path, variants: int = 1, change: Callable[[Row], Row] = lambda row: row) -> Path:
    """A folder as `variate` writes it; its images are the originals, a little darker each time."""
    folder = ImageFolder(source)
    classes = class_to_idx(item.label for item in folder.items())
    open_run(out, RunRecord({}, classes, source=str(source)))
    rows = []
    for item in folder.items():
        data = folder.read(item)
        with Image.open(item.path) as image:
            pixels = np.asarray(image.convert("RGB"))
        for variant in range(variants):
            key = variation_name(item.key, variant, "png")
            row = change(Row(item.key, variant, key, item.label, source_sha256=hashlib.sha256(data).hexdigest()))
            rows.append(row)
            if row.output:
                (out / key).parent.mkdir(exist_ok=True)
                Image.fromarray((pixels * (1 - 0.05 * variant)).astype(np.uint8)).save(out / key)
    write_manifest(out, rows, class_to_idx=classes)
    return out


def tiny_net(classes: int) -> nn.Module:
    """A few thousand weights, with all that a resumed run could get wrong: running means and dropout."""
    first = [nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Dropout(0.1)]
    return nn.Sequential(*first, nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(256, classes))


def plain_net(classes: int) -> nn.Module:
    """The same without batch normalisation and dropout."""
    first = [nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.ReLU()]
    return nn.Sequential(*first, nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(256, classes))
