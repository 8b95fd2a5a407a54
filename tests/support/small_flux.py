"""A small FLUX.1 Redux of the real classes with random weights: FLUX's pipeline, and beside it Redux's folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from diffusers.pipelines.flux.modeling_flux import ReduxImageEncoder
from small_models import SIDE, WIDTH, filled
from transformers import SiglipImageProcessor, SiglipVisionConfig, SiglipVisionModel

POOLED = 8
"""The width of the pooled embedding of a text."""
SHIFTING = {"use_dynamic_shifting": True, "base_image_seq_len": 4, "max_image_seq_len": 64}
"""FLUX.1-dev's kind of schedule, for pictures of few places."""


def transformer(guided: bool) -> FluxTransformer2DModel:
    """With attention that is sharp: otherwise the 512 zeros of the text would drown the tokens of the picture."""
    made = filled(
        FluxTransformer2DModel(
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=WIDTH,
            pooled_projection_dim=POOLED,
            guidance_embeds=guided,
            axes_dims_rope=(4, 6, 6),
        ),
        1,
    )
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if "attn.norm" in name:
                parameter.mul_(7)
    return made


def vae() -> AutoencoderKL:
    """Of FLUX's kind: without the convolutions around the latent, and shifted."""
    return filled(
        AutoencoderKL(
            block_out_channels=(8, 8, 8),
            down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3,
            latent_channels=4,
            norm_num_groups=4,
            sample_size=SIDE,
            scaling_factor=0.36,
            shift_factor=0.4,
            use_quant_conv=False,
            use_post_quant_conv=False,
        ),
        2,
    )


def image_encoder() -> SiglipVisionModel:
    config = SiglipVisionConfig(
        hidden_size=WIDTH,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=56,
        patch_size=7,
    )
    return filled(SiglipVisionModel(config), 3)


def saved_flux(place: Path, guided: bool = True, **of_scheduler: Any) -> Path:
    """Save a model: with `guided` one like FLUX.1-dev, else one like FLUX.1-schnell."""
    FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(**(of_scheduler or SHIFTING)),
        vae=vae(),
        text_encoder=None,
        tokenizer=None,
        text_encoder_2=None,
        tokenizer_2=None,
        transformer=transformer(guided),
    ).save_pretrained(place)
    image_encoder().save_pretrained(place / "image_encoder")
    filled(ReduxImageEncoder(redux_dim=WIDTH, txt_in_features=WIDTH), 4).save_pretrained(place / "image_embedder")
    SiglipImageProcessor(size={"height": 56, "width": 56}).save_pretrained(place / "feature_extractor")
    return place
