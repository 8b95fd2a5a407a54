"""The views: ways to transform an image, each of which hides some kinds of trigger.

A network can learn a trigger only if it can see it. A classifier that sees the images through a view which hides the
trigger learns what the images show instead, and its answers then show which labels do not fit. No view hides every
trigger, so there are several. Each docstring says what the view hides, what stays visible, and what it costs for a
batch of 128 images of 32 px on one core, where a training step of a small network (`network`) takes about 20 ms.

Each view is a function of (B, 3, H, W) uint8 that returns (B, C, h, w) float32, with h <= H and w <= W and values of
about unit size. The result for an image depends on its own pixels alone, never on its batch. Lengths are in pixels of
the image that the view receives; detectors pass images of at most 64 px.
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
"""Added to the local contrast, in units of the full range, so that weaker contrast, which is noise, stays small."""
_TURN = 30.0
_ZOOM = 0.2


def pixels(images: Tensor) -> Tensor:
    """The pixels as they are.

    Hides nothing: every trigger that can be learned can be learned here. It is the reference for the other views. Costs
    nothing.

    Args:
        images: (B, 3, H, W) uint8.

    Returns:
        (B, 3, H, W) float32, 0 for middle grey and 2 for white.
    """
    return (images.float() / 255 - 0.5) * 4


def edges(images: Tensor) -> Tensor:
    """Fine edges: a high-pass filter of the grey image, divided by the local contrast.

    Hides what is smooth or coloured (waves of low frequency, colour shifts, smooth additive patterns) and evens out the
    strength of edges. Patches, checkers, noise and the edges of a blended image stay visible. Two pixels at the rim are
    blank, because the blur sees only half a slope there and would show it. Costs about 1 ms for a batch.

    Args:
        images: (B, 3, H, W) uint8.

    Returns:
        (B, 1, H, W) float32.
    """
    grey = _grey(images)
    band = _even_contrast(grey - blurred(grey, 1.0), 2.0)
    return F.pad(band[:, :, 2:-2, 2:-2], (2, 2, 2, 2))


def soft_edges(images: Tensor) -> Tensor:
    """Edges of a middle frequency band: blurred, then high-pass filtered, and divided by the local contrast.

    Hides fine noise and checkers, which the blur removes, and smooth fields, which the high-pass filter removes. Waves
    of the middle band and large shapes of a blended image stay visible, and so does a patch of high contrast. The band
    needs only every second pixel. The rim is left out, because the blur sees only half a slope there. Costs about 1 ms
    for a batch and makes the network four times cheaper.

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
    and colour shifts stay visible; a bright patch of 3 px is barely visible. Costs almost nothing, and the network
    becomes about sixteen times cheaper.

    Args:
        images: (B, 3, H, W) uint8.

    Returns:
        (B, 3, H/4, W/4) float32, rounded up.
    """
    return _averaged(images, 4)


def coarse_8(images: Tensor) -> Tensor:
    """Colours averaged over squares of 8x8 px.

    Hides everything that is finer than 8 px, including waves of six periods in 32 px. The smoothest patterns and colour
    shifts stay visible, but little of what the image shows. Costs almost nothing.

    Args:
        images: (B, 3, H, W) uint8.

    Returns:
        (B, 3, H/8, W/8) float32, rounded up.
    """
    return _averaged(images, 8)


def turned(images: Tensor) -> Tensor:
    """The middle of the image, rotated by up to 30 degrees and scaled by up to 1.2.

    The angle and the scale are derived from the pixels of the image. Hides what depends on its position: patches at the
    rim are cut off, and a pattern that covers the image is no longer aligned from one image to the next. Triggers that
    are defined by their texture or colour rather than their position (noise, colour shifts) stay visible. Costs about 8
    ms for a batch.

    Args:
        images: (B, 3, H, W) uint8.

    Returns:
        (B, 3, 3H/4, 3W/4) float32.
    """
    bits = random_bits(_fingerprints(images), 0)
    return pixels(_middle(turn_and_zoom(images, bits, _TURN, _ZOOM)))


def band_stop(images: Tensor) -> Tensor:
    """The image without periods of about 4 to 16 px, the band in which sinusoids are usually hidden.

    Hides waves of that band and much of a blended image. Fine noise, checkers, small patches and colour shifts stay
    visible. Costs about 6 ms for a batch.

    Args:
        images: (B, 3, H, W) uint8.

    Returns:
        (B, 3, H, W) float32.
    """
    whole = pixels(images)
    return whole - blurred(whole, 0.8) + blurred(whole, 4.0)


def centre(images: Tensor) -> Tensor:
    """The middle half of the image along each side; `rim` is the rest.

    Hides what lies in the outer quarter of each side, above all corner patches. What covers the whole image stays
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
    """The image with its middle half along each side filled with the mean colour of the rest.

    It is the complement of `centre`.

    Hides what lies in the middle, such as objects that are pasted there. What covers the whole image, and what lies in
    a corner, stays visible. Costs nothing.

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
    """Gaussian blur of (B, C, H, W) by `sigma` px. Outside the image, the pixels at its rim are repeated."""
    down, across = (_blur(side, sigma).to(values.device) for side in values.shape[2:])
    return down @ values @ across.T


@lru_cache(maxsize=32)
def _blur(side: int, sigma: float) -> Tensor:
    """The (side, side) float32 matrix that blurs a column.

    On small images, a matrix product is much faster than a convolution.
    """
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
    """The image without an eighth of its side at each end."""
    height, width = images.shape[2:]
    top, left = height // 8, width // 8
    return images[:, :, top : height - top, left : width - left]


def _fingerprints(images: Tensor) -> np.ndarray:
    """(B,) uint64, a number computed from each image's pixels, so that random draws for an image depend on it alone."""
    flat = images.flatten(1).to("cpu", torch.int64)
    primes = 2 * torch.arange(flat.shape[1], dtype=torch.int64) + 1
    numbers: np.ndarray = (flat * primes).sum(1).numpy().astype(np.uint64)
    return numbers
