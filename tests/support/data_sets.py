"""Small data sets in formats that are no folders, as other people's tools write them."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from diffclean.data.encode import encode
from diffclean.data.registry import open_source

Members = Iterable[tuple[str, bytes] | tuple[tarfile.TarInfo, bytes]]


def picture(number: int, side: int = 12) -> bytes:
    """A PNG of its own for each number."""
    rng = np.random.default_rng(number)
    return encode(rng.integers(0, 255, (side, side, 3), np.uint8))


def tar(path: Path, members: Members) -> Path:
    """A tar with exactly these members."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as file:
        for name, data in members:
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = len(data) if info.isreg() else info.size
            file.addfile(info, io.BytesIO(data))
    return path


def shards(folder: Path, count: int = 2, each: int = 3) -> Path:
    """`count` tars of `each` samples with a number as label and a caption; returns the pattern that names them."""
    for shard in range(count):
        samples: list[tuple[str, bytes]] = []
        for index in range(shard * each, shard * each + each):
            samples += [
                (f"{index:04d}.png", picture(index)),
                (f"{index:04d}.cls", str(index % 3).encode()),
                (f"{index:04d}.json", b'{"caption":  "number %d"}' % index),
            ]
        tar(folder / f"x-{shard:03d}.tar", samples)
    return folder / f"x-{{000..{count - 1:03d}}}.tar"


def content(where: Path | str, **options: object) -> list[tuple[str, bytes]]:
    """The label and the bytes of every image of a data set, sorted."""
    source = open_source(where, **options)
    return sorted((item.label, source.read(item)) for item in source.items())


def problems(where: Path | str) -> dict[str, str]:
    """Key -> why it is not read."""
    return {item.key: item.problem for item in open_source(where).items() if item.problem}


def files_below(folder: Path, but: tuple[str, ...] = ()) -> Mapping[str, bytes]:
    """Every file, hidden ones too, by its relative path."""
    found = (path for path in folder.rglob("*") if path.is_file() and path.name not in but)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}
