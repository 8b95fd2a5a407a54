"""Cross-attention to a single token, without the attention.

A softmax over one key is 1 whatever the query, so every position receives the value itself: `to_out(to_v(context))`.
The query, the key, the norm before them and the softmax can be omitted, and the result is the same.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


class OneTokenAttention(nn.Module):
    """Replaces a diffusers `Attention` whose context is always one token."""

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.to_v = attention.to_v
        self.to_out = attention.to_out

    def forward(self, hidden_states: Tensor, encoder_hidden_states: Tensor, **_: Any) -> Tensor:
        """(B, N, C), (B, 1, D) -> (B, 1, C), which is added at every position."""
        value: Tensor = self.to_v(encoder_hidden_states)
        for layer in self.to_out:
            value = layer(value)
        return value


def collapse_cross_attention(unet: nn.Module) -> int:
    """Replace every cross-attention of a U-Net that is conditioned on one token; return how many there were."""
    from diffusers.models.attention import BasicTransformerBlock

    blocks = [module for module in unet.modules() if isinstance(module, BasicTransformerBlock)]
    for block in blocks:
        block.attn2 = OneTokenAttention(block.attn2)
    return len(blocks)


class EmbeddingUNet(nn.Module):
    """A U-Net that is conditioned on one embedding; takes the place `unet`."""

    def __init__(self, unet: Any) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, sample: Tensor, timestep: Tensor, image_embeds: Tensor) -> Tensor:
        """(B, C, H, W) noised latent, (B,) timestep, (B, D) embedding -> (B, C, H, W) prediction."""
        predicted: Tensor = self.unet(sample, timestep, image_embeds[:, None], return_dict=False)[0]
        return predicted
