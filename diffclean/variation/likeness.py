"""How similar a variation is to its source, as a number up to 1, which equal pictures have.

If the model has an image encoder of its own, both pictures are encoded and the cosine of their features is taken: it
says whether they show the same things, in the eyes of the model. `micro` and the image-to-image families have no such
encoder. Their pictures are compared without a network, by the structural similarity of coarse averages. That says
whether light and colour are in the same places, and nothing about fine detail, where a trigger may be.

A similarity depends on the two pictures and the engine only, and not on the other pictures of the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from diffclean.data.fit import shrunk
from diffclean.data.pixels import Pixels
from diffclean.families.base import noise_shapes
from diffclean.runtime.choose import Engine

if TYPE_CHECKING:
    from torch import Tensor

CELLS = 16
"""The number of averages along each side of a picture that are compared without a network."""
_STEADY_MEAN, _STEADY_SPREAD = (0.01 * 255) ** 2, (0.03 * 255) ** 2
"""C1 and C2 of Wang et al., for which they give these values: they keep pictures of one colour comparable."""


class Likeness(Protocol):
    """Compares variations with their sources."""

    measure: str
    """What is compared, in a few words."""

    def compare(self, sources: Sequence[Pixels], made: Sequence[Pixels]) -> list[float]:
        """The similarity of each pair of pictures, (H, W, 3) uint8, which are as many as a batch at most."""


def likeness_for(engine: Engine, batch: int) -> Likeness:
    """The way in which a family compares pictures; `batch` is the batch size that the engine is run with."""
    return _Encoded(engine, batch) if hasattr(engine.family, "features") else Coarse()


class Coarse:
    """The structural similarity (SSIM) of two pictures that were averaged to `CELLS` by `CELLS` cells.

    Wang et al., "Image Quality Assessment", IEEE Transactions on Image Processing 13(4), 2004, eq. 13, over one window
    that holds all cells and colours.
    """

    measure = f"coarse structure ({CELLS} by {CELLS} cells)"

    def compare(self, sources: Sequence[Pixels], made: Sequence[Pixels]) -> list[float]:
        """See `Likeness.compare`."""
        return [_structural(_cells(a), _cells(b)) for a, b in zip(sources, made, strict=True)]


class _Encoded:
    """The cosine of the features that the family's own image encoder makes of two pictures."""

    measure = "the model's own image encoder"

    def __init__(self, engine: Engine, batch: int) -> None:
        self._engine = engine
        self._batch = batch
        self._noise = noise_shapes(engine.manifest.components)

    def compare(self, sources: Sequence[Pixels], made: Sequence[Pixels]) -> list[float]:
        """See `Likeness.compare`."""
        pairs = zip(self._features(sources), self._features(made), strict=True)
        return [_cosine(a, b) for a, b in pairs]

    def _features(self, pictures: Sequence[Pixels]) -> np.ndarray:
        """(B, D) float64. A batch is filled up, because its size may change what a runtime computes."""
        import torch

        manifest, device = self._engine.manifest, self._engine.runtime.device
        side = manifest.image_size
        squares = np.zeros((self._batch, side, side, 3), np.uint8)
        for index, picture in enumerate(pictures):
            squares[index] = shrunk(picture, side, side)
        noise = {name: torch.zeros(self._batch, *shape, device=device) for name, shape in self._noise.items()}
        encode = getattr(self._engine.family, "features")  # noqa: B009 # a family need not have it
        found: Tensor = encode(self._engine.call, torch.from_numpy(squares).to(device), noise)
        return found[: len(pictures)].cpu().double().numpy()


def _cells(picture: Pixels) -> np.ndarray:
    """(H, W, 3) uint8 -> (h, w, 3) float64, averages; h and w are `CELLS`, or the side of a smaller picture."""
    sums, counts = picture.astype(np.int64), np.ones(picture.shape[:2], np.int64)
    for axis, side in enumerate(picture.shape[:2]):
        cells = min(CELLS, side)
        starts = np.arange(cells) * side // cells
        sums, counts = (np.add.reduceat(each, starts, axis=axis) for each in (sums, counts))
    averages: np.ndarray = sums / counts[:, :, None]
    return averages


def _structural(a: np.ndarray, b: np.ndarray) -> float:
    mean_a, mean_b = float(a.mean()), float(b.mean())
    together = float(((a - mean_a) * (b - mean_b)).mean())
    of_mean = (2 * mean_a * mean_b + _STEADY_MEAN) / (mean_a**2 + mean_b**2 + _STEADY_MEAN)
    of_spread = (2 * together + _STEADY_SPREAD) / (float(a.var()) + float(b.var()) + _STEADY_SPREAD)
    return of_mean * of_spread


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    """The cosine of two vectors; -1 if it does not exist, because a vector is zero or not finite."""
    length = float(np.sqrt((a * a).sum() * (b * b).sum()))
    cosine = float((a * b).sum()) / length if length > 0 else float("nan")
    return cosine if np.isfinite(cosine) else -1.0
