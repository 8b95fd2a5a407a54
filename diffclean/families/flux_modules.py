"""FLUX.1 Redux as torch modules: SigLIP's tokens of a picture, and a transformer that is conditioned on them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from diffclean.families.clip_image import ClipPixels

TEXT_TOKENS = 512
"""The number of zero vectors that stand for the tokens of a text, as in diffusers' `FluxPriorReduxPipeline`."""
_HALF = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
"""SigLIP's normalisation, if its processor does not say another."""


class ReduxTokens(nn.Module):
    """From pixels to SigLIP's tokens in the space of FLUX's texts; takes the place `image_encoder`."""

    def __init__(self, encoder: Any, embedder: Any, processor: Mapping[str, Any], image_size: int) -> None:
        super().__init__()
        self.pixels = ClipPixels(image_size, {**_HALF, **processor}, encoder.config.image_size)
        self.encoder = encoder
        self.embedder = embedder

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, S, S, 3) uint8 -> (B, N, D) float, a token for each patch of the picture."""
        states = self.encoder(self.pixels(pixels).to(self.encoder.dtype)).last_hidden_state
        tokens: Tensor = self.embedder(states).image_embeds
        return tokens


class RotaryTables(nn.Module):
    """The rotary position embeddings of fixed positions, computed once (Su et al., "RoFormer", arXiv 2104.09864).

    FLUX computes them in fp64 at every call, which few runtimes support.
    """

    def __init__(self, embed: Any, positions: Tensor) -> None:
        super().__init__()
        # These are no buffers, so that they stay in fp32 in half precision, as in diffusers.
        self.cos, self.sin = (table.float() for table in embed(positions))

    def forward(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Twice (T, H) float, cosines and sines; `positions` is used only for its device."""
        return self.cos.to(positions.device), self.sin.to(positions.device)


class ReduxTransformer(nn.Module):
    """FLUX's transformer, conditioned on the tokens of a picture and on no text; takes the place `unet`.

    Args:
        transformer: diffusers' `FluxTransformer2DModel`; its position embedding is replaced by tables.
        tokens: the number of tokens of a picture.
        side: the side of the latent.
    """

    def __init__(self, transformer: Any, tokens: int, side: int) -> None:
        super().__init__()
        self.across = side // 2
        self.text = (TEXT_TOKENS, transformer.config.joint_attention_dim)
        self.pooled = transformer.config.pooled_projection_dim
        places = torch.cartesian_prod(torch.arange(self.across), torch.arange(self.across))
        positions = torch.zeros(TEXT_TOKENS + tokens + len(places), 3)
        positions[-len(places) :, 1:] = places
        # Read again by the transformer only to join them; the tables do not depend on them.
        self.positions = positions
        self.texts = TEXT_TOKENS + tokens
        transformer.pos_embed = RotaryTables(transformer.pos_embed, positions)
        self.transformer = transformer

    def forward(self, sample: Tensor, timestep: Tensor, tokens: Tensor, guidance: Tensor | None = None) -> Tensor:
        """Predict the direction from the sample to the noise.

        Args:
            sample: (B, C, H, W) noised latent.
            timestep: (B,) float, from 0 to 1000.
            tokens: (B, N, D) tokens of the source.
            guidance: (B,) float, the scale of guidance, for a model that was distilled with guidance.

        Returns:
            (B, C, H, W) float.
        """
        batch, channels = sample.shape[0], sample.shape[1]
        packed = sample.reshape(batch, channels, self.across, 2, self.across, 2).permute(0, 2, 4, 1, 3, 5)
        positions = self.positions.to(sample.device)
        predicted: Tensor = self.transformer(
            hidden_states=packed.reshape(batch, self.across**2, 4 * channels),
            encoder_hidden_states=torch.cat([tokens.new_zeros(batch, *self.text), tokens], dim=1),
            pooled_projections=tokens.new_zeros(batch, self.pooled),
            timestep=timestep / 1000,
            guidance=guidance,
            txt_ids=positions[: self.texts],
            img_ids=positions[self.texts :],
            return_dict=False,
        )[0]
        places = predicted.reshape(batch, self.across, self.across, channels, 2, 2).permute(0, 3, 1, 4, 2, 5)
        return places.reshape(batch, channels, 2 * self.across, 2 * self.across)
