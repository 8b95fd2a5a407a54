"""Decodes trusted images once into one array, which pretraining maps into memory."""

from __future__ import annotations

import hashlib
import logging
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Event

import numpy as np

from diffclean.data.decode import decoded
from diffclean.data.fit import Fit, to_square
from diffclean.data.item import Item, ItemError
from diffclean.data.pixels import Pixels
from diffclean.data.registry import open_source
from diffclean.data.sources import Source
from diffclean.errors import DiffcleanError, Interrupted
from diffclean.progress import NoProgress, Progress

log = logging.getLogger(__name__)


def packed_images(
    source: Path, out: Path, size: int, workers: int = 2, progress: Progress | None = None, stop: Event | None = None
) -> tuple[Pixels, int]:
    """All images below `source` as central squares, shuffled, stored in `out/images-<size>-<listing's hash>.npy`.

    Args:
        source: a folder of images.
        out: the run folder.
        size: the side of the squares, in pixels.
        workers: the number of threads that decode.
        progress: is advanced for every image.
        stop: when set, the work stops and nothing is kept.

    Returns:
        (N, size, size, 3) uint8, mapped from the file, and the number of files that could not be read (listed in the
        log).

    Raises:
        DiffcleanError: there is no image that can be read.
        Interrupted: `stop` was set.
    """
    progress = progress or NoProgress()
    folder = open_source(source)
    items = list(folder.items())
    # The order is that of a hash, so that the held-out images at the end come from all classes, and mostly stay the
    # same when images are added.
    items.sort(key=lambda item: hashlib.blake2b(item.key.encode(), digest_size=8).digest())
    listing = hashlib.sha256("\n".join(_listed(item) for item in items).encode()).hexdigest()
    path = out / f"images-{size}-{listing[:12]}.npy"
    if path.exists():
        images: Pixels = np.load(path, mmap_mode="r", allow_pickle=False)
        return images, len(items) - len(images)
    out.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".part")
    progress.begin("decode", len(items))
    try:
        squares = np.lib.format.open_memmap(temporary, "w+", np.uint8, (len(items), size, size, 3))
        good = 0
        for item, square in _decoded(folder, items, size, workers):
            if stop is not None and stop.is_set():
                raise Interrupted("Stopped while decoding; the same command starts again from the beginning.")
            if isinstance(square, ItemError):
                log.warning("%s: %s", item.key, square.message)
            else:
                squares[good] = square
                good += 1
            progress.advance()
        if not good:
            raise DiffcleanError(f"None of the {len(items)} images in {source} can be read.")
        squares.flush()
        if good < len(items):
            with path.with_suffix(".shorter.part").open("wb") as file:
                np.save(file, squares[:good])
            path.with_suffix(".shorter.part").replace(temporary)
        temporary.replace(path)
    finally:
        progress.end()
        for part in path.parent.glob(f"{path.stem}*.part"):
            part.unlink()
    packed: Pixels = np.load(path, mmap_mode="r", allow_pickle=False)
    return packed, len(items) - good


def _listed(item: Item) -> str:
    """A text that changes when an image is replaced."""
    return f"{item.key} {item.stamp.replace(':', ' ')}" if item.stamp else item.key


def _decoded(folder: Source, items: list[Item], size: int, workers: int) -> Iterator[tuple[Item, Pixels | ItemError]]:
    """Each item with its square, or with the error; in order, with a bounded number decoded ahead."""

    def square(item: Item) -> Pixels | ItemError:
        try:
            with decoded(folder.read(item)) as (image, _):
                return to_square(image, size, Fit.CROP)[0]
        except ItemError as error:
            return error

    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[tuple[Item, Future[Pixels | ItemError]]] = deque()
        for item in items:
            waiting.append((item, pool.submit(square, item)))
            if len(waiting) > 16 * workers:
                first, future = waiting.popleft()
                yield first, future.result()
        for first, future in waiting:
            yield first, future.result()
