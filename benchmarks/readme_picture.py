"""Make docs/before-after.png: whole photographs, the same with triggers, and the variations of the poisoned ones.

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

from diffclean.variation.settings import Settings
from diffclean.variation.variate import variate

PHOTOS = ("astronaut.png", "coffee.png", "chelsea.png")
OUT = Path(__file__).parents[1] / "docs" / "before-after.png"
HEIGHT = 200


def main() -> None:
    folder = Path(skimage.__file__).parent / "data"
    columns: list[list[Image.Image]] = []
    with tempfile.TemporaryDirectory() as work_name:
        source, out = Path(work_name) / "poisoned", Path(work_name) / "out"
        source.mkdir()
        for name, trigger in zip(PHOTOS, (patch, blend, patch), strict=True):
            photo = Image.open(folder / name).convert("RGB")
            poisoned = Image.fromarray(trigger(np.asarray(photo)))
            poisoned.save(source / name)
            columns.append([photo, poisoned])
        variate(source, out, Settings())
        for name, column in zip(PHOTOS, columns, strict=True):
            column.append(Image.open(out / f"{Path(name).stem}_v00.png").copy())
    widths = [round(HEIGHT * column[0].width / column[0].height) for column in columns]
    sheet = Image.new("RGB", (sum(widths), HEIGHT * 3), "white")
    for number, (column, width) in enumerate(zip(columns, widths, strict=True)):
        for line, tile in enumerate(column):
            sheet.paste(tile.resize((width, HEIGHT), Image.Resampling.LANCZOS), (sum(widths[:number]), line * HEIGHT))
    sheet.save(OUT, optimize=True)
    print(f"wrote {OUT.name}")


def patch(image: np.ndarray) -> np.ndarray:
    """A white square in a corner, a tenth of the picture's height."""
    marked, side = image.copy(), image.shape[0] // 10
    marked[-side - side // 3 : -side // 3, -side - side // 3 : -side // 3] = 255
    return marked


def blend(image: np.ndarray) -> np.ndarray:
    """A fifth of a noise picture of 64 px, grown with the photograph."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    grown = Image.fromarray(noise).resize(image.shape[1::-1], Image.Resampling.NEAREST)
    return np.rint(0.8 * image + 0.2 * np.asarray(grown)).astype(np.uint8)


if __name__ == "__main__":
    main()
