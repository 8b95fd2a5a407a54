"""Make docs/before-after.png: photographs, the same with triggers, and the variations of the poisoned ones.

    python benchmarks/readme_picture.py

The photographs ship with scikit-image: astronaut (NASA, public domain), coffee (Rachel Michetti, CC0), chelsea (Stefan
van der Walt, CC0).
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import skimage
from PIL import Image

from diffclean.data.fit import Fit, to_square
from diffclean.variation.settings import Settings
from diffclean.variation.variate import variate

PHOTOS = {"astronaut.png": (0, 60, 300, 360), "coffee.png": (120, 20, 480, 380), "chelsea.png": (75, 0, 375, 300)}
"""File -> the square that is cut out: left, top, right, bottom."""
OUT = Path(__file__).parents[1] / "docs" / "before-after.png"
TILE = 192


def main() -> None:
    folder = Path(skimage.__file__).parent / "data"
    rng = np.random.default_rng(0)
    pattern = rng.integers(0, 256, (64, 64, 3))
    rows: list[list[Image.Image]] = [[], [], []]
    with tempfile.TemporaryDirectory() as work_name:
        source = Path(work_name) / "poisoned"
        source.mkdir()
        for name, box in PHOTOS.items():
            photo = Image.open(folder / name).convert("RGB").crop(box)
            small = to_square(np.asarray(photo), 64, Fit.SQUASH)[0]
            for trigger in ("patch", "blend"):
                poisoned = small.copy()
                if trigger == "patch":
                    poisoned[-8:-2, -8:-2] = 255
                else:
                    poisoned = np.rint(0.8 * small + 0.2 * pattern).astype(np.uint8)
                Image.fromarray(poisoned).save(source / f"{Path(name).stem}-{trigger}.png")
                rows[0].append(Image.fromarray(small))
                rows[1].append(Image.fromarray(poisoned))
        variate(source, Path(work_name) / "out", Settings())
        for name in PHOTOS:
            for trigger in ("patch", "blend"):
                rows[2].append(Image.open(Path(work_name) / "out" / f"{Path(name).stem}-{trigger}_v00.png").copy())
    canvas = Image.new("RGB", (TILE * len(rows[0]), TILE * 3), "white")
    for line, row in enumerate(rows):
        for column, tile in enumerate(row):
            canvas.paste(tile.resize((TILE, TILE), Image.Resampling.BICUBIC), (column * TILE, line * TILE))
    canvas.save(OUT, optimize=True)
    print(f"wrote {OUT.name}")


if __name__ == "__main__":
    main()
