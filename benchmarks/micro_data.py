"""Collect the trusted images on which the recipes of `micro` are trained in one folder.

    python benchmarks/micro_data.py TINY_IMAGENET --photographs SCENES128 SCENES150 -o DATA

Small images are linked unchanged. Each photograph contributes its centre square and the four quarters of it, because
`micro` sees large pictures in windows: it has to know what a part of a photograph looks like, not only the whole.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from diffclean.data.decode import decode
from diffclean.data.encode import encode
from diffclean.data.fit import Fit, to_square
from diffclean.data.folder import ImageFolder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("small", type=Path, nargs="*", help="folders of images that are used as they are")
    parser.add_argument("--photographs", type=Path, nargs="*", default=[])
    parser.add_argument("--size", type=int, default=64, help="the side of the model's square in pixels")
    parser.add_argument("-o", "--out", type=Path, required=True)
    options = parser.parse_args()
    for source in options.small:
        for item in ImageFolder(source).items():
            link(item.path, options.out / source.name / item.key)
    made = sum(with_quarters(source, options.out / source.name, options.size) for source in options.photographs)
    print(f"{made} pictures of photographs, and what {len(options.small)} other folders hold, are in {options.out}.")


def link(path: Path, there: Path) -> None:
    """A second name for a file; a copy would take as much room again."""
    there.parent.mkdir(parents=True, exist_ok=True)
    if not there.exists():
        os.link(path, there)


def with_quarters(source: Path, out: Path, size: int) -> int:
    """Write each photograph as a centre square of `size` pixels, and the four quarters of one of twice the side."""
    folder, made = ImageFolder(source), 0
    for item in folder.items():
        photograph = decode(folder.read(item))
        double = to_square(photograph, 2 * size, Fit.CROP)[0]
        squares = {"whole": to_square(photograph, size, Fit.CROP)[0]}
        for number, (top, left) in enumerate([(0, 0), (0, size), (size, 0), (size, size)]):
            squares[f"quarter{number}"] = double[top : top + size, left : left + size]
        for name, square in squares.items():
            path = (out / item.key).with_suffix(f".{name}.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode(square))
            made += 1
    return made


if __name__ == "__main__":
    main()
