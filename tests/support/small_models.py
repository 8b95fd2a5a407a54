"""Small models of the real classes with random weights, saved as a hub's model would lie in a folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMScheduler,
    StableDiffusionImageVariationPipeline,
    StableDiffusionPipeline,
    StableUnCLIPImg2ImgPipeline,
    UNet2DConditionModel,
    VersatileDiffusionImageVariationPipeline,
)
from diffusers.pipelines.stable_diffusion import StableUnCLIPImageNormalizer
from torch import nn
from transformers import (
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

WIDTH = 16
"""Of every embedding."""
SIDE = 32
"""Of the pictures, in pixels; a latent has a quarter of it."""


def filled(module: nn.Module, seed: int) -> Any:
    """Weights that let everything through: what starts at zero would hide a path."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            scale = 0.3 if parameter.ndim == 1 else 1.2 / parameter[0].numel() ** 0.5
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
    return module.eval()


def unet(**changes: Any) -> UNet2DConditionModel:
    shape = {
        "sample_size": SIDE // 4,
        "in_channels": 4,
        "out_channels": 4,
        "block_out_channels": (16, 32),
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "layers_per_block": 1,
        "norm_num_groups": 8,
        "attention_head_dim": 4,
        "cross_attention_dim": WIDTH,
    }
    return filled(UNet2DConditionModel(**(shape | changes)), 1)


def vae() -> AutoencoderKL:
    return filled(
        AutoencoderKL(
            block_out_channels=(8, 8, 8),
            down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3,
            latent_channels=4,
            norm_num_groups=4,
            sample_size=SIDE,
        ),
        2,
    )


def image_encoder() -> CLIPVisionModelWithProjection:
    config = CLIPVisionConfig(
        hidden_size=WIDTH,
        intermediate_size=32,
        projection_dim=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=14,
        patch_size=7,
    )
    return filled(CLIPVisionModelWithProjection(config), 3)


def processor() -> CLIPImageProcessor:
    return CLIPImageProcessor(size={"shortest_edge": 14}, crop_size={"height": 14, "width": 14})


def scheduler(**changes: Any) -> DDIMScheduler:
    """Stable Diffusion's schedule."""
    return DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, steps_offset=1, **changes
    )


def tokenizer() -> CLIPTokenizer:
    """Of a vocabulary of letters; the padding is a word of its own, as in Stable Diffusion 2."""
    words = ["<|startoftext|>", "<|endoftext|>", "!", *"abc", *(f"{letter}</w>" for letter in "abc")]
    vocabulary = {word: number for number, word in enumerate(words)}
    return CLIPTokenizer(vocab=vocabulary, merges=[], pad_token="!", model_max_length=8)


def text_encoder() -> CLIPTextModel:
    config = CLIPTextConfig(
        hidden_size=WIDTH,
        intermediate_size=32,
        projection_dim=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        vocab_size=9,
        max_position_embeddings=8,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
    )
    return filled(CLIPTextModel(config), 4)


def image_normalizer() -> StableUnCLIPImageNormalizer:
    """With means of its own, and a deviation that no picture can hide behind."""
    normalizer = filled(StableUnCLIPImageNormalizer(WIDTH), 5)
    with torch.no_grad():
        normalizer.std.copy_(1 + normalizer.std.abs())
    return normalizer


def sd_image_variations() -> StableDiffusionImageVariationPipeline:
    return StableDiffusionImageVariationPipeline(
        vae=vae(),
        image_encoder=image_encoder(),
        unet=unet(),
        scheduler=scheduler(),
        safety_checker=None,
        feature_extractor=processor(),
        requires_safety_checker=False,
    )


def versatile_diffusion() -> VersatileDiffusionImageVariationPipeline:
    return VersatileDiffusionImageVariationPipeline(
        vae=vae(),
        image_encoder=image_encoder(),
        image_unet=unet(),
        scheduler=scheduler(),
        image_feature_extractor=processor(),
    )


def stable_unclip() -> StableUnCLIPImg2ImgPipeline:
    """With the prediction of the real one: the velocity."""
    return StableUnCLIPImg2ImgPipeline(
        feature_extractor=processor(),
        image_encoder=image_encoder(),
        image_normalizer=image_normalizer(),
        image_noising_scheduler=DDPMScheduler(beta_schedule="squaredcos_cap_v2"),
        tokenizer=tokenizer(),
        text_encoder=text_encoder(),
        unet=unet(class_embed_type="projection", projection_class_embeddings_input_dim=2 * WIDTH),
        scheduler=scheduler(prediction_type="v_prediction"),
        vae=vae(),
    )


def sd_img2img(**of_scheduler: Any) -> StableDiffusionPipeline:
    return StableDiffusionPipeline(
        vae=vae(),
        text_encoder=text_encoder(),
        tokenizer=tokenizer(),
        unet=unet(),
        scheduler=scheduler(**of_scheduler),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


MODELS: dict[str, Callable[[], Any]] = {
    "sd-image-variations": sd_image_variations,
    "sd-img2img": sd_img2img,
    "stable-unclip": stable_unclip,
    "versatile-diffusion": versatile_diffusion,
}
"""Family -> its small pipeline."""


def saved(family: str, folder: Path) -> Path:
    """Save a family's small pipeline to `folder`."""
    MODELS[family]().save_pretrained(folder)
    if family == "versatile-diffusion":
        # The hub's model is the whole pipeline; its text parts are not read.
        index = folder / "model_index.json"
        content = json.loads(index.read_text()) | {"_class_name": "VersatileDiffusionPipeline"}
        index.write_text(json.dumps(content))
    return folder
