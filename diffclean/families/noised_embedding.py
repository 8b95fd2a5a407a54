"""An image's CLIP embedding with a known amount of noise added, as unCLIP models expect it."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from diffclean.families.clip_image import ImageEmbedding
from diffclean.families.parts import load_part
from diffclean.families.schedulers import read_scheduler

NOISE_LEVEL = 0
"""The level in the image noising schedule, which is diffusers' default. Even level 0 has a little noise."""


class NoisedEmbedding(nn.Module):
    """From pixels to the noised embedding and its noise level; takes the place `image_encoder`.

    The noise is added in a space where the embeddings of the training pictures have mean 0 and standard deviation 1:
    mean + a (e - mean) + b deviation noise, with a^2 + b^2 = 1 (Ramesh et al., arXiv 2204.06125, section 2; a and b are
    the square roots in eq. 4 of DDPM, Ho et al., arXiv 2006.11239).
    """

    mean: Tensor
    of_noise: Tensor
    level: Tensor

    def __init__(self, embedding: ImageEmbedding, directory: Path) -> None:
        super().__init__()
        from diffusers import DDPMScheduler
        from diffusers.models.embeddings import get_timestep_embedding
        from diffusers.pipelines.stable_diffusion import StableUnCLIPImageNormalizer

        self.embedding = embedding
        normalizer = load_part(StableUnCLIPImageNormalizer, directory, "image_normalizer")
        schedule = DDPMScheduler.from_config(read_scheduler(directory, "image_noising_scheduler"))
        kept = float(schedule.alphas_cumprod[NOISE_LEVEL])
        self.of_embedding, of_noise = kept**0.5, (1 - kept) ** 0.5
        width = normalizer.mean.shape[-1]
        self.register_buffer("mean", normalizer.mean.data.clone())
        self.register_buffer("of_noise", of_noise * normalizer.std.data)
        level = torch.tensor([NOISE_LEVEL])
        self.register_buffer(
            "level", get_timestep_embedding(level, width, flip_sin_to_cos=True, downscale_freq_shift=0)
        )

    def forward(self, pixels: Tensor, noise: Tensor) -> Tensor:
        """(B, S, S, 3) uint8, (B, D) standard normal -> (B, 2 D) float: the embedding, then sinusoids of the level."""
        embedding = self.embedding(pixels)
        noised = self.mean + self.of_embedding * (embedding - self.mean) + self.of_noise * noise
        return torch.cat([noised, self.level.expand(noised.shape[0], -1)], dim=1)
