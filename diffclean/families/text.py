"""Text-to-image networks with an empty prompt, which is computed once and becomes a constant of the graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diffclean.errors import DiffcleanError
from diffclean.families.parts import load_part

DISTILLED_GUIDANCE = 8.5
"""The scale of guidance that latent consistency models are given, the default of diffusers' pipeline for them."""


def empty_prompt(directory: Path) -> Tensor:
    """(1, N, D) float, what the `text_encoder/` of a model makes of the text "" from its `tokenizer/`.

    Raises:
        DiffcleanError: one of the two parts is missing, damaged or of another kind.
    """
    from transformers import CLIPTextModel

    tokenizer = load_tokenizer(directory, "tokenizer")
    encoder = load_part(CLIPTextModel, directory, "text_encoder")
    length = min(tokenizer.model_max_length, encoder.config.max_position_embeddings)
    words = tokenizer("", padding="max_length", max_length=length, truncation=True, return_tensors="pt")
    # As in diffusers' pipelines, padding is attended to unless the configuration of the encoder says otherwise.
    mask = words.attention_mask if getattr(encoder.config, "use_attention_mask", False) else None
    with torch.no_grad():
        embedding: Tensor = encoder(words.input_ids, attention_mask=mask)[0]
    return embedding.clone()


def load_tokenizer(directory: Path, part: str) -> Any:
    """Read a tokenizer of a model directory.

    Raises:
        DiffcleanError: its vocabulary is missing or damaged.
    """
    from transformers import CLIPTokenizer

    folder = directory / part
    # If there is no vocabulary, transformers makes up one of three words.
    if not (folder / "tokenizer.json").is_file() and not (folder / "vocab.json").is_file():
        raise DiffcleanError(
            f"{directory} is not a whole model: {part}/vocab.json is missing.",
            "A model directory is what diffusers' `save_pretrained` writes, or a copy of all files of the hub's page.",
        )
    try:
        return CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # there are many kinds, from a missing file to a wrong format
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DiffcleanError(f"The tokenizer in {folder} cannot be read: {reason}") from error


class UntoldUNet(nn.Module):
    """A U-Net whose prompt is always empty; takes the place `unet`.

    A latent consistency model was distilled with guidance, and its U-Net is given the scale of that guidance (Luo et
    al., arXiv 2310.04378, section 4.2). It is a constant here.
    """

    prompt: Tensor
    guidance: Tensor | None

    def __init__(self, unet: Any, prompt: Tensor) -> None:
        super().__init__()
        self.unet = unet
        self.register_buffer("prompt", prompt)
        width = unet.config.time_cond_proj_dim
        self.register_buffer("guidance", None if width is None else _guidance_embedding(DISTILLED_GUIDANCE, width))

    def forward(self, sample: Tensor, timestep: Tensor) -> Tensor:
        """(B, C, H, W) noised latent, (B,) timestep -> (B, C, H, W) prediction."""
        # `len(sample)` would put the batch size of the tracing into the exported graph.
        context = self.prompt.expand(sample.shape[0], -1, -1)
        guidance = None if self.guidance is None else self.guidance.expand(sample.shape[0], -1)
        predicted: Tensor = self.unet(sample, timestep, context, timestep_cond=guidance, return_dict=False)[0]
        return predicted


def _guidance_embedding(scale: float, width: int) -> Tensor:
    """(1, width) float, how diffusers' pipelines tell a U-Net the scale of guidance."""
    from diffusers.models.embeddings import get_timestep_embedding

    weight = torch.tensor([scale - 1]) * 1000
    embedding: Tensor = get_timestep_embedding(weight, width, flip_sin_to_cos=False, downscale_freq_shift=1)
    return embedding


class ClassUNet(nn.Module):
    """A U-Net with an empty prompt that is given an image in place of a class; takes the place `unet`."""

    prompt: Tensor

    def __init__(self, unet: Any, prompt: Tensor) -> None:
        super().__init__()
        self.unet = unet
        self.register_buffer("prompt", prompt)

    def forward(self, sample: Tensor, timestep: Tensor, image_embeds: Tensor) -> Tensor:
        """(B, C, H, W) noised latent, (B,) timestep, (B, D) embedding -> (B, C, H, W) prediction."""
        context = self.prompt.expand(sample.shape[0], -1, -1)
        predicted: Tensor = self.unet(sample, timestep, context, class_labels=image_embeds, return_dict=False)[0]
        return predicted


class BesideUNet(nn.Module):
    """A U-Net with an empty prompt that is given a second latent beside the sample; takes the place `unet`."""

    prompt: Tensor

    def __init__(self, unet: Any, prompt: Tensor, scale: float) -> None:
        super().__init__()
        self.unet = unet
        self.register_buffer("prompt", prompt)
        self.scale = scale

    def forward(self, sample: Tensor, timestep: Tensor, source: Tensor) -> Tensor:
        """(B, C, H, W) noised latent, (B,) timestep, (B, C, H, W) scaled latent -> (B, C, H, W) prediction.

        As in diffusers, the second latent is not scaled when the U-Net is given it.
        """
        context = self.prompt.expand(sample.shape[0], -1, -1)
        both = torch.cat([sample, source / self.scale], dim=1)
        predicted: Tensor = self.unet(both, timestep, context, return_dict=False)[0]
        return predicted
