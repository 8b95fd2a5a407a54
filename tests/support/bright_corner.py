"""A classifier with a backdoor that was built in by hand."""

from __future__ import annotations

import torch
from torch import Tensor, nn

CLASSES = {"blue": 0, "green": 1, "red": 2}


class BrightCorner(nn.Module):
    """Says blue, the target, when the last pixel is bright, and else what the brightest channel is: a backdoor."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B, 3)."""
        channels = x.mean((2, 3))[:, [2, 1, 0]]  # the classes are blue, green, red; the channels red, green, blue
        fooled = (x[:, :, -1, -1].min(1).values > 0.95)[:, None] * torch.tensor([10.0, 0, 0])
        return self.scale * channels + fooled
