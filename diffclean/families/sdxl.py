"""Parts of Stable Diffusion XL: the U-Net, the VAE, and what an empty prompt becomes, which is constant.

The U-Net of SDXL (Podell et al., arXiv 2307.01952) attends to the tokens of two text encoders. It is also given the
second encoder's embedding of the whole text, and six numbers about the size of the picture (section 2.2). With an empty
prompt all of this depends on the side of the square only, so it is computed once and stored in the graph.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diffclean.errors import DiffcleanError
from diffclean.families.parts import load_part, load_unet, read_config, square_of
from diffclean.families.text import load_tokenizer

_NUMBERS_OF_SIZE = 6
"""Height and width of the original, top and left of the crop, height and width of the result."""


@dataclass(frozen=True)
class Sdxl:
    """The parts of a model that are needed after the text encoders.

    Attributes:
        unet: the U-Net.
        vae: the VAE.
        size: the side of the square, in pixels.
        prompt: (2, N, D) the tokens of the unconditional half of guidance, and those of the empty prompt.
        pooled: (2, P) the embeddings of both.
        time_ids: (6,) the numbers about the size.
    """

    unet: Any
    vae: Any
    size: int
    prompt: Tensor
    pooled: Tensor
    time_ids: Tensor


def read_sdxl(directory: Path, image_size: int | None) -> Sdxl:
    """Read a model directory. The text encoders are used once, for the empty prompt, and then released.

    Raises:
        DiffcleanError: a part is missing, belongs to another model, or the model is the refiner.
    """
    from diffusers import AutoencoderKL

    index = read_config(directory, "", "model_index.json")
    if index.get("requires_aesthetics_score"):
        raise DiffcleanError(
            f"{directory} is a refiner of Stable Diffusion XL, which is told how beautiful a picture shall be.",
            "Give the base model in its place.",
        )
    prompt, pooled = _empty_prompts(directory)
    # As in diffusers, the unconditional half is zeros, and not the empty prompt, unless the model says otherwise.
    kept = 0.0 if index.get("force_zeros_for_empty_prompt", True) else 1.0
    time_width = read_config(directory, "unet").get("addition_time_embed_dim")
    unet = load_unet(
        directory,
        "unet",
        context=prompt.shape[-1],
        addition_embed_type="text_time",
        projection_class_embeddings_input_dim=_NUMBERS_OF_SIZE * (time_width or 0) + pooled.shape[-1],
    )
    vae = load_part(AutoencoderKL, directory, "vae")
    size = square_of(image_size, unet, vae)
    time_ids = torch.tensor([size, size, 0.0, 0.0, size, size])
    return Sdxl(unet, vae, size, torch.cat([kept * prompt, prompt]), torch.cat([kept * pooled, pooled]), time_ids)


def _empty_prompts(directory: Path) -> tuple[Tensor, Tensor]:
    """((1, N, D), (1, P)) float: the empty text's tokens of both encoders side by side, and its embedding.

    The tokens are those before the last layer of each encoder. As in diffusers, padding is attended to.
    """
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    tokens = []
    encoders = {
        "tokenizer": (CLIPTextModel, "text_encoder"),
        "tokenizer_2": (CLIPTextModelWithProjection, "text_encoder_2"),
    }
    for part, (cls, name) in encoders.items():
        tokenizer = load_tokenizer(directory, part)
        encoder = load_part(cls, directory, name)
        length = min(tokenizer.model_max_length, encoder.config.max_position_embeddings)
        words = tokenizer("", padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        with torch.no_grad():
            found = encoder(words.input_ids, output_hidden_states=True)
        tokens.append(found.hidden_states[-2].clone())
    if tokens[0].shape[1] != tokens[1].shape[1]:
        raise DiffcleanError(
            f"The text encoders of {directory} make {tokens[0].shape[1]} and {tokens[1].shape[1]} tokens; they belong "
            "to different models.",
            "Copy all parts from the same model.",
        )
    return torch.cat(tokens, dim=-1), found.text_embeds.clone()


class SdxlUNet(nn.Module):
    """A U-Net of SDXL whose prompt is always empty; takes the place `unet`."""

    prompt: Tensor
    pooled: Tensor
    time_ids: Tensor

    def __init__(self, model: Sdxl) -> None:
        super().__init__()
        self.unet = model.unet
        for name in ("prompt", "pooled", "time_ids"):
            self.register_buffer(name, getattr(model, name))

    def forward(self, sample: Tensor, timestep: Tensor, told: Tensor) -> Tensor:
        """Predict what the scheduler's prediction type asks for.

        Args:
            sample: (B, C, H, W) noised latent.
            timestep: (B,) float.
            told: (B,) float: 1 for the empty prompt, 0 for the unconditional half of guidance.

        Returns:
            (B, C, H, W) float, the prediction.
        """
        predicted: Tensor = self.unet(
            sample, timestep, chosen(self.prompt, told), added_cond_kwargs=self.added(told), return_dict=False
        )[0]
        return predicted

    def added(self, told: Tensor) -> dict[str, Tensor]:
        """The embedding of the text and the numbers about the size, for each row."""
        return {"text_embeds": chosen(self.pooled, told), "time_ids": self.time_ids.expand(told.shape[0], -1)}


def chosen(halves: Tensor, told: Tensor) -> Tensor:
    """(2, ...) constants, (B,) float -> (B, ...): the second where `told` is 1, the first where it is 0."""
    return torch.where(told.reshape(-1, *[1] * (halves.ndim - 1)) > 0.5, halves[1:], halves[:1])
