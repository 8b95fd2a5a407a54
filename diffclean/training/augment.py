"""Random crops and flips on whole batches of tensors: much quicker than image by image."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def crop_and_flip(images: Tensor, generator: torch.Generator, pad: int | None = None) -> Tensor:
    """Shift each image by up to `pad` pixels (edges reflected) and mirror about half of them.

    Args:
        images: (B, 3, H, W) uint8, on the CPU.
        generator: CPU generator; the result depends on its state alone.
        pad: largest shift; None: an eighth of the shorter side (4 at 32 px, as is usual for CIFAR).

    Returns:
        (B, 3, H, W) uint8.
    """
    count, channels, height, width = images.shape
    pad = min(height, width) // 8 if pad is None else pad
    if pad:
        padded = F.pad(images.float(), (pad, pad, pad, pad), mode="reflect").to(torch.uint8)
        # (B, 3, 2p+1, 2p+1, H, W) view of every possible crop; indexing copies only the crops that were drawn.
        crops = padded.unfold(2, height, 1).unfold(3, width, 1)
        top, left = torch.randint(0, 2 * pad + 1, (2, count), generator=generator)
        images = crops[torch.arange(count), :, top, left]
    mirrored = torch.rand(count, 1, 1, 1, generator=generator) < 0.5
    return torch.where(mirrored, images.flip(3), images).view(count, channels, height, width)
