"""The bank of views: ways to look at a picture, each of which hides some kinds of trigger.

A trigger can be learned only where it can be seen. A classifier that looks through a view which hides the trigger
learns what the pictures show instead, and its answers then say which labels do not fit. No view hides every trigger,
so there are several; each says what it hides, what stays visible, and what it costs for a batch of 128 images of 32 px
on one core, where a training step of a small network (`network`) takes about 20 ms.

Each view is a function of (B, 3, H, W) uint8 that returns (B, C, h, w) float32, with h <= H and w <= W and values of
about the size of one. An image's view depends on its own pixels alone, never on its batch. Lengths are in pixels of
the image as it is given, which detectors look at in at most 64 px.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from diffclean.datasets.bits import random_bits
from diffclean.training.augment import turn_and_zoom

View = Callable[[Tensor], Tensor]

_FAINT = 0.02
"""Added to the local contrast, in units of the full range: contrast below it is noise and stays small."""
_TURN = 30.0
_ZOOM = 0.2


def pixels(images: Tensor) -> Tensor:
    """The pixels as they are.

    Hides nothing: where a trigger can be learned at all, it is learned here. Shows what the other views are compared
    with. Costs nothing.

    Args:
        images: (B, 3, H, W) uint8.

    Returns:
        (B, 3, H, W) float32, 0 for middle grey and 2 for white.
    """
    return (images.float() / 255 - 0.5) * 4


def edges(images: Tensor) -> Tensor:
    """Fine edges: the high-pass of the grey picture, divided by the contrast around each place.

    Hides what is smooth or coloured (waves of low frequency, colour shifts, smooth additive patterns) and evens out how
    strong an edge is. Patches, checkers, noise and the edges of a blended picture stay visible. Two pixels at the rim,
    where the blur sees half a slope and would show it, are blank. Costs about 1 ms for a batch.

    Args:
        images: (B, 3, H, W) uint8.

    Returns:
        (B, 1, H, W) float32.
    """
    grey = _grey(images)
    band = _even_contrast(grey - blurred(grey, 1.0), 2.0)
    return F.pad(band[:, :, 2:-2, 2:-2], (2, 2, 2, 2))


def soft_edges(images: Tensor) -> Tensor:
    """Edges of a middle band: blurred first, then the high-pass, divided by the contrast around each place.

    Hides fine noise and checkers, which the blur removes, and smooth fields, which the high-pass removes. Waves of
    the middle band and large shapes of a blended picture stay visible, and so does a patch of high contrast. The band
    needs only every second pixel, and none at the rim, where the blur sees half a slope. Costs about 1 ms for a batch
    and makes the network four times cheaper.

    Args:
        images: (B, 3, H, W) uint8.

    Returns:
        (B, 1, H/2 - 2, W/2 - 2) float32, rounded up.
    """
    grey = blurred(_grey(images), 1.0)
    return _even_contrast(grey - blurred(grey, 3.0), 3.0)[:, :, 2:-2:2, 2:-2:2]


def coarse_4(images: Tensor) -> Tensor:
    """Colours averaged over squares of 4x4 px.

    Hides what is finer than 4 px: checkers, noise, waves of high frequency, quantisation, small warps. Smooth patterns
    and colour shifts stay visible; a bright patch of 3 px only just. Costs nothing to speak of, and the network becomes
    about sixteen times cheaper.

    Args:
        images: (B, 3, H, W) uint8.

    Returns:
        (B, 3, H/4, W/4) float32, rounded up.
    """
    return _averaged(images, 4)


def coarse_8(images: Tensor) -> Tensor:
    """Colours averaged over squares of 8x8 px.

    Hides all that is finer than 8 px, waves of six periods in 32 px among it. The smoothest patterns and colour shifts
    stay visible, and little of what the picture shows. Costs nothing to speak of.

    Args:
        images: (B, 3, H, W) uint8.

    Returns:
        (B, 3, H/8, W/8) float32, rounded up.
    """
    return _averaged(images, 8)


def turned(images: Tensor) -> Tensor:
    """The middle of the picture, turned by up to 30 degrees and scaled by up to 1.2, as the pixels themselves decide.

    Hides what hangs on its place: patches at the rim are cut off, and a pattern that covers the picture no longer meets
    itself from one image to the next. Triggers whose kind tells more than their place (noise, colour shifts) stay
    visible. Costs about 8 ms for a batch.

    Args:
        images: (B, 3, H, W) uint8.

    Returns:
        (B, 3, 3H/4, 3W/4) float32.
    """
    bits = random_bits(_fingerprints(images), 0)
    return pixels(_middle(turn_and_zoom(images, bits, _TURN, _ZOOM)))


def band_stop(images: Tensor) -> Tensor:
    """The picture without the band in which sinusoids are usually hidden, of about 4 to 16 px a period.

    Hides waves of that band and much of a blended picture. Fine noise, checkers, small patches and colour shifts stay
    visible. Costs about 6 ms for a batch.

    Args:
        images: (B, 3, H, W) uint8.

    Returns:
        (B, 3, H, W) float32.
    """
    whole = pixels(images)
    return whole - blurred(whole, 0.8) + blurred(whole, 4.0)


def centre(images: Tensor) -> Tensor:
    """The middle half of the picture, by each side; `rim` is what is left.

    Hides what lies in the outer quarter of each side, corner patches above all. What covers the whole picture stays
    visible. Costs nothing, and makes the network four times cheaper.

    Args:
        images: (B, 3, H, W) uint8.

    Returns:
        (B, 3, H/2, W/2) float32.
    """
    height, width = images.shape[2:]
    top, left = height // 4, width // 4
    return pixels(images[:, :, top : height - top, left : width - left])


def rim(images: Tensor) -> Tensor:
    """The picture with its middle half, by each side, filled with the mean colour of the rest; complement of `centre`.

    Hides what lies in the middle: objects that are pasted there. What covers the whole picture, and what lies in a
    corner, stays visible. Costs nothing.

    Args:
        images: (B, 3, H, W) uint8.

    Returns:
        (B, 3, H, W) float32.
    """
    shown = pixels(images)
    height, width = images.shape[2:]
    top, left = height // 4, width // 4
    outside = torch.ones(1, 1, height, width, device=images.device)
    outside[:, :, top : height - top, left : width - left] = 0
    mean = (shown * outside).sum((2, 3), keepdim=True) / outside.sum()
    return torch.where(outside.bool(), shown, mean)


VIEWS: dict[str, View] = {
    "pixels": pixels,
    "edges": edges,
    "soft-edges": soft_edges,
    "coarse-4": coarse_4,
    "coarse-8": coarse_8,
    "turned": turned,
    "band-stop": band_stop,
    "centre": centre,
    "rim": rim,
}


def _grey(images: Tensor) -> Tensor:
    """(B, 1, H, W) float32 in [0, 1]."""
    return images.float().mean(1, keepdim=True) / 255


def blurred(values: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of (B, C, H, W) by `sigma` px; beyond the rim its pixels are repeated."""
    down, across = (_blur(side, sigma).to(values.device) for side in values.shape[2:])
    return down @ values @ across.T


@lru_cache(maxsize=32)
def _blur(side: int, sigma: float) -> Tensor:
    """(side, side) float32 that blurs a column. On small images a product of matrices beats a convolution by far."""
    reach = math.ceil(2.5 * sigma)
    offsets = torch.arange(-reach, reach + 1)
    weights = (-0.5 * (offsets / sigma) ** 2).exp()
    places = (torch.arange(side)[:, None] + offsets).clamp(0, side - 1)
    return torch.zeros(side, side).scatter_add_(1, places, (weights / weights.sum()).expand(side, -1))


def _even_contrast(band: Tensor, sigma: float) -> Tensor:
    """A band divided by its own root mean square within about `sigma` px."""
    return band / (blurred(band.square(), sigma).sqrt() + _FAINT)


def _averaged(images: Tensor, factor: int) -> Tensor:
    return F.avg_pool2d(pixels(images), factor, ceil_mode=True, count_include_pad=False)


def _middle(images: Tensor) -> Tensor:
    """Without an eighth of each side at each end."""
    height, width = images.shape[2:]
    top, left = height // 8, width // 8
    return images[:, :, top : height - top, left : width - left]


def _fingerprints(images: Tensor) -> np.ndarray:
    """(B,) uint64, a number that follows from each image's pixels: what is drawn for it belongs to the image."""
    flat = images.flatten(1).to("cpu", torch.int64)
    primes = 2 * torch.arange(flat.shape[1], dtype=torch.int64) + 1
    numbers: np.ndarray = (flat * primes).sum(1).numpy().astype(np.uint64)
    return numbers
