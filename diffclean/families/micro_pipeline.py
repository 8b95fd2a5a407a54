"""The family `micro` as an ordinary diffusers pipeline: plain torch, eager, with the loop of diffusers.

diffclean does not run it in production. It lets a diffusers user load the model, and the parity tests and the speed
benchmarks compare with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import DiffusionPipeline
from torch import Tensor

from diffclean.families.micro_model import MicroUNet, PixelDecoder
from diffclean.families.micro_view import cell_sides, coarse_look, encoder_of, view_told
from diffclean.families.seeds import noise_for


class MicroPipeline(DiffusionPipeline):
    """A diffusers pipeline; use it as `MicroPipeline.from_pretrained(model_directory)(pixels, seeds)`."""

    def __init__(self, unet: MicroUNet, scheduler: Any) -> None:
        super().__init__()
        self.register_modules(unet=unet, scheduler=scheduler)
        self.view_encoder, self.decoder = encoder_of(unet), PixelDecoder()

    @torch.no_grad()
    def __call__(
        self, pixels: Tensor, seeds: Sequence[int], strength: float = 0.3, num_inference_steps: int = 8
    ) -> Tensor:
        """Make one variation of each image of a batch.

        Args:
            pixels: (B, S, S, 3) uint8.
            seeds: one seed for each image.
            strength: the strength as in `diffclean variate`, see `Micro.look`.
            num_inference_steps: the number of denoising steps.

        Returns:
            (B, S, S, 3) uint8.
        """
        size = self.unet.config.sample_size
        noise = noise_for(seeds, {"sample": (3, size, size), "view": (3, size // 2, size // 2)})
        ones, cell = torch.ones(len(pixels)), None
        level = strength * ones
        if self.unet.config.view == 2:
            factor, noise_level = coarse_look(strength)
            level, cell = noise_level * ones, cell_sides(factor * ones, torch.full((len(pixels), 2), float(size)), size)
        condition = view_told(self.view_encoder, pixels, noise["view"], level, cell)
        self.scheduler.set_timesteps(num_inference_steps)
        sample = noise["sample"] * self.scheduler.init_noise_sigma
        for timestep in self.progress_bar(self.scheduler.timesteps):
            scaled = self.scheduler.scale_model_input(sample, timestep)
            predicted = self.unet(scaled, torch.full((len(pixels),), float(timestep)), **condition)
            sample = self.scheduler.step(predicted, timestep, sample).prev_sample
        images: Tensor = self.decoder(sample)[0]
        return images
