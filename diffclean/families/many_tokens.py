"""All CLIP tokens of a picture, with which Versatile Diffusion is conditioned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from diffclean.families.clip_image import ClipPixels

_NO_PICTURE = 0.5 / 255
"""The grey level of the picture that stands for no picture. diffusers means a half, but passes it to an image processor
that divides by 255 once more. The published results were therefore made with a nearly black picture."""


class ImageTokens(nn.Module):
    """From pixels to CLIP's tokens in the space that texts and images share; takes the place `image_encoder`."""

    def __init__(self, encoder: Any, processor: Mapping[str, Any], image_size: int) -> None:
        super().__init__()
        self.pixels = ClipPixels(image_size, processor, encoder.config.image_size)
        self.encoder = encoder

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, S, S, 3) uint8 -> (B, N, D) float; the first token has length 1."""
        return self._tokens(self.pixels(pixels))

    def of_no_picture(self) -> Tensor:
        """(1, N, D) float, the tokens of the picture that stands for no picture."""
        side = self.encoder.config.image_size
        with torch.no_grad():
            return self._tokens(((_NO_PICTURE - self.pixels.mean) / self.pixels.std).expand(1, 3, side, side))

    def _tokens(self, image: Tensor) -> Tensor:
        """(B, 3, T, T) float, normalised -> (B, N, D)."""
        vision = self.encoder.vision_model
        states = vision(image.to(self.encoder.dtype)).last_hidden_state
        tokens: Tensor = self.encoder.visual_projection(vision.post_layernorm(states))
        # All tokens are divided by the length of the first token, which stands for the whole picture.
        return tokens / tokens[:, :1].norm(dim=-1, keepdim=True)


class TokensUNet(nn.Module):
    """A U-Net that is conditioned on the tokens of a picture, or on those of no picture; takes the place `unet`."""

    no_picture: Tensor

    def __init__(self, unet: Any, no_picture: Tensor) -> None:
        super().__init__()
        self.unet = unet
        self.register_buffer("no_picture", no_picture)

    def forward(self, sample: Tensor, timestep: Tensor, tokens: Tensor, told: Tensor) -> Tensor:
        """Predict what the scheduler's prediction type asks for.

        Args:
            sample: (B, C, H, W) noised latent.
            timestep: (B,) float.
            tokens: (B, N, D) tokens of the source.
            told: (B,) float: 1 to condition on `tokens`, 0 to condition on the tokens of no picture.

        Returns:
            (B, C, H, W) float, the prediction.
        """
        context = torch.where(told[:, None, None] > 0.5, tokens, self.no_picture)
        predicted: Tensor = self.unet(sample, timestep, context, return_dict=False)[0]
        return predicted
