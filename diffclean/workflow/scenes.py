"""Draws signs as a camera on a car sees them: turned, tilted, lit from a side, blurred, before sky, wall or leaves."""

from __future__ import annotations

import hashlib
import io
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter

from diffclean.environment import usable_cores
from diffclean.progress import NoProgress, Progress
from diffclean.workflow.signs import FACES, SIDE, face_of

_SHOT = 128
"""Side of a scene while it is composed; it is reduced at the end, which smooths it as a lens does."""


def draw_data_set(
    folder: Path, split: str, count: int, size: int = 48, seed: int = 1, progress: Progress | None = None
) -> Path:
    """Draw `folder/split/<class>/<number>.jpg`, the same for the same arguments.

    Args:
        folder: the folder of the data set.
        split: the part of the data set. `train` and `test` share no image.
        count: the number of images per class.
        size: the side of the images in pixels.
        seed: the seed of everything that is random.
        progress: is advanced for every image.

    Returns:
        `folder/split`.
    """
    progress = progress or NoProgress()
    progress.begin(f"draw {split}", count * len(FACES))
    for name in FACES:
        (folder / split / name).mkdir(parents=True, exist_ok=True)

    def draw(what: tuple[str, int]) -> None:
        name, index = what
        digest = hashlib.sha256(f"{seed}/{split}/{name}/{index}".encode()).digest()
        scene = draw_scene(name, size, np.random.default_rng(int.from_bytes(digest[:8], "big")))
        (folder / split / name / f"{index:04d}.jpg").write_bytes(_jpeg(scene))

    # Pillow turns and resizes outside of Python's lock, so threads share the work.
    pool = ThreadPoolExecutor(max(1, int(usable_cores())))
    try:
        for _ in pool.map(draw, product(FACES, range(count))):
            progress.advance()
    finally:
        pool.shutdown(cancel_futures=True)
    progress.end()
    return folder / split


def draw_scene(name: str, size: int, rng: np.random.Generator) -> Image.Image:
    """Draw one picture of a sign: (size, size) RGB."""
    scene = _background(rng)
    side = int(_SHOT * rng.uniform(0.62, 0.92))
    sign = _tilted(_face(name), side, rng)
    room = _SHOT - side
    left, top = (int(room * rng.uniform(0.2, 0.8)) for _ in range(2))
    post = int(left + side / 2 + rng.integers(-2, 3))
    ImageDraw.Draw(scene).line([(post, top + side * 0.8), (post, _SHOT)], fill=(110, 112, 115), width=5)
    scene.paste(sign, (left, top), sign)
    scene = _lit(scene, rng)
    if rng.random() < 0.5:
        scene = scene.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 2.0)))
    small = np.asarray(scene.resize((size, size), Image.Resampling.BOX), np.float32)
    noisy = small + rng.normal(0, rng.uniform(1, 7), small.shape)
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))


@cache
def _face(name: str) -> Image.Image:
    return face_of(name)


def _background(rng: np.random.Generator) -> Image.Image:
    """Draw sky over ground, a wall, or leaves: two colours, and cells of several sizes."""
    upper, lower = rng.integers(40, 230, 3), rng.integers(30, 190, 3)
    horizon = rng.uniform(0.2, 1.1) * _SHOT
    rows = np.arange(_SHOT, dtype=np.float32)[:, None, None]
    blend = np.clip((rows - horizon) / rng.uniform(2, 40) + 0.5, 0, 1)
    picture = np.broadcast_to(upper * (1 - blend) + lower * blend, (_SHOT, _SHOT, 3)).copy()
    for cells in (4, 9, 21, 43):
        coarse = rng.normal(0, rng.uniform(2, 22), (cells, cells, 1)) + rng.normal(0, 5, (cells, cells, 3))
        for channel in range(3):
            layer = Image.fromarray(coarse[:, :, channel].astype(np.float32))
            picture[:, :, channel] += np.asarray(layer.resize((_SHOT, _SHOT), Image.Resampling.BICUBIC))
    return Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))


def _tilted(face: Image.Image, side: int, rng: np.random.Generator) -> Image.Image:
    """Turn a face a little and look at it from a side: RGBA of `side` pixels."""
    turned = face.rotate(rng.normal(0, 6), Image.Resampling.BICUBIC)
    corners = np.array([(0, 0), (SIDE, 0), (SIDE, SIDE), (0, SIDE)], float)
    moved = corners + rng.uniform(-0.09, 0.09, (4, 2)) * SIDE
    seen = turned.transform(
        (SIDE, SIDE), Image.Transform.PERSPECTIVE, _homography(corners, moved), Image.Resampling.BICUBIC
    )
    return seen.resize((side, side), Image.Resampling.LANCZOS)


def _homography(target: NDArray[np.float64], source: NDArray[np.float64]) -> list[float]:
    """Return the eight numbers for Pillow's PERSPECTIVE that map (4, 2) `target` corners to `source` corners."""
    rows, values = [], []
    for (x, y), (u, v) in zip(target, source, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        values += [u, v]
    return [float(number) for number in np.linalg.solve(np.array(rows), np.array(values))]


def _lit(scene: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Add light from a side, the edge of a shadow, and the exposure of a camera."""
    y, x = np.mgrid[0:_SHOT, 0:_SHOT] / _SHOT - 0.5
    angle = rng.uniform(0, 2 * np.pi)
    along = x * np.cos(angle) + y * np.sin(angle)
    light = 1 + rng.uniform(0, 0.5) * along
    if rng.random() < 0.3:
        light = light * np.where(along > rng.uniform(-0.3, 0.3), rng.uniform(0.55, 0.8), 1)
    tint = rng.uniform(0.9, 1.1, 3)
    pixels = np.asarray(scene, np.float32) * light[:, :, None] * tint * rng.uniform(0.55, 1.25)
    shot = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    return ImageEnhance.Color(shot).enhance(rng.uniform(0.5, 1.2))


def _jpeg(scene: Image.Image) -> bytes:
    buffer = io.BytesIO()
    scene.save(buffer, "JPEG", quality=92)
    return buffer.getvalue()
