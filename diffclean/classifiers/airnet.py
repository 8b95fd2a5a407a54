"""A network for images of 32 to 64 px that learns in a few epochs.

Source: K. Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", 2024, arXiv 2404.00498. Three things make it fast:
a first convolution that is computed from the training images instead of learned, few and wide layers that run near the
peak speed of tensor units, and residual-like first weights without shortcuts.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_WIDTHS = (64, 256, 256)
_PATCH = 2
"""The side of the patches of the first convolution, in pixels."""
_SMALLEST_VARIANCE = 0.1
"""It is added to the variance of each direction, so that noise in the flattest ones is not blown up. Jordan's 5e-4 is
meant for images that were never compressed. In JPEG and WebP copies of CIFAR-10 and Tiny ImageNet, fine colour detail
has variances of 1e-4 to 5e-3, and most of it is noise of the codec."""
_NEWEST = 0.4
"""The share of the newest batch in the running means of batch normalisation, which a short training needs."""


class AirNet(nn.Module):
    """2.0 million parameters and 0.15 GMAC at 32 px: normalised (B, 3, H, W) -> logits (B, num_classes).

    Args:
        num_classes: the number of logits.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        directions = 3 * _PATCH**2
        self.first = nn.Conv2d(3, 2 * directions, _PATCH)
        self.first.weight.requires_grad_(False)
        nn.init.zeros_(self.first.bias)  # type: ignore[arg-type] # this layer has one
        widths = (2 * directions, *_WIDTHS)
        self.body = nn.Sequential(*(_Halve(n_in, n_out) for n_in, n_out in pairwise(widths)))
        self.head = nn.Linear(widths[-1], num_classes, bias=False)
        nn.init.normal_(self.head.weight, std=1 / widths[-1])

    @torch.no_grad()
    def begin_from(self, images: Tensor) -> None:
        """Compute the first convolution: each output is one direction of the patches of `images`.

        The directions are the principal axes, once with each sign, because the activation that follows cuts one side.
        They are uncorrelated. Each has variance 1, or less if it has hardly any variance in the images.

        Args:
            images: (N, 3, H, W) float, normalised, of the training set; some thousand are enough.
        """
        patches = images.unfold(2, _PATCH, 1).unfold(3, _PATCH, 1).permute(0, 2, 3, 1, 4, 5).flatten(0, 2).flatten(1)
        variances, axes = torch.linalg.eigh(patches.T @ patches / len(patches))
        filters = axes.T / (variances.clamp_min(0) + _SMALLEST_VARIANCE).sqrt()[:, None]
        self.first.weight.copy_(torch.cat([filters, -filters]).view_as(self.first.weight))

    def forward(self, x: Tensor) -> Tensor:
        """Normalised (B, 3, H, W) of at least 16 px -> logits (B, num_classes)."""
        maps = self.body(F.gelu(self.first(x)))
        logits: Tensor = self.head(F.adaptive_max_pool2d(maps, 1).flatten(1))
        return logits


class _Halve(nn.Module):
    """Two 3x3 convolutions, with a 2x2 maximum after the first."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = _conv(n_in, n_out), _norm(n_out)
        self.conv2, self.norm2 = _conv(n_out, n_out), _norm(n_out)

    def forward(self, x: Tensor) -> Tensor:
        """(B, n_in, H, W) -> (B, n_out, H / 2, W / 2)."""
        h = F.gelu(self.norm1(F.max_pool2d(self.conv1(x), 2)))
        return F.gelu(self.norm2(self.conv2(h)))


def _conv(n_in: int, n_out: int) -> nn.Conv2d:
    """A convolution whose first outputs begin as copies of the inputs, which takes the place of a shortcut."""
    conv = nn.Conv2d(n_in, n_out, 3, padding=1, bias=False)
    nn.init.dirac_(conv.weight.data[:n_in])
    return conv


def _norm(width: int) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(width, momentum=_NEWEST)
    norm.weight.requires_grad_(False)
    return norm
