"""Small models of the real classes with random weights, saved as a hub's model would lie in a folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMScheduler,
    KandinskyV22CombinedPipeline,
    PriorTransformer,
    StableDiffusionImageVariationPipeline,
    StableDiffusionInstructPix2PixPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    StableUnCLIPImg2ImgPipeline,
    UnCLIPScheduler,
    UNet2DConditionModel,
    VersatileDiffusionImageVariationPipeline,
    VQModel,
)
from diffusers.pipelines.stable_diffusion import StableUnCLIPImageNormalizer
from safetensors.torch import save_file
from torch import nn
from transformers import (
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

WIDTH = 16
"""Of every embedding."""
SIDE = 32
"""Of the pictures, in pixels; a latent has a quarter of it."""


ADAPTER = "ip-adapter_small.safetensors"
"""The file of a small IP-Adapter."""


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


def text_encoder(cls: type[nn.Module] = CLIPTextModel, seed: int = 4) -> Any:
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
    return filled(cls(config), seed)


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


def sdxl_unet() -> UNet2DConditionModel:
    """Attends to the tokens of both text encoders, and is told six numbers about the size."""
    return unet(
        cross_attention_dim=2 * WIDTH,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + WIDTH,
        use_linear_projection=True,
        transformer_layers_per_block=(2, 1),
    )


def sdxl_img2img(**more: Any) -> StableDiffusionXLPipeline:
    return StableDiffusionXLPipeline(
        vae=vae(),
        text_encoder=text_encoder(),
        text_encoder_2=text_encoder(CLIPTextModelWithProjection, 6),
        tokenizer=tokenizer(),
        tokenizer_2=tokenizer(),
        unet=sdxl_unet(),
        scheduler=scheduler(),
        add_watermarker=False,
        **more,
    )


def ip_adapter() -> StableDiffusionPipeline:
    """Its adapter is a file of its own, see `adapter_state`."""
    return StableDiffusionPipeline(
        vae=vae(),
        text_encoder=text_encoder(),
        tokenizer=tokenizer(),
        unet=unet(),
        scheduler=scheduler(),
        safety_checker=None,
        feature_extractor=processor(),
        image_encoder=image_encoder(),
        requires_safety_checker=False,
    )


def ip_adapter_sdxl() -> StableDiffusionXLPipeline:
    return sdxl_img2img(feature_extractor=processor(), image_encoder=image_encoder())


def kandinsky_unet() -> UNet2DConditionModel:
    """Told by an embedding of a picture; gives a variance beside the noise."""
    return unet(
        out_channels=8,
        addition_embed_type="image",
        encoder_hid_dim=WIDTH,
        encoder_hid_dim_type="image_proj",
        resnet_time_scale_shift="scale_shift",
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
    )


def movq() -> VQModel:
    return filled(
        VQModel(
            block_out_channels=(32, 32, 32),  # its spatial norms have 32 groups
            down_block_types=("DownEncoderBlock2D", "DownEncoderBlock2D", "AttnDownEncoderBlock2D"),
            up_block_types=("AttnUpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D"),
            latent_channels=4,
            vq_embed_dim=4,
            num_vq_embeddings=12,
            norm_num_groups=4,
            norm_type="spatial",
        ),
        8,
    )


def kandinsky() -> KandinskyV22CombinedPipeline:
    """Both halves in one folder, as diffusers saves them."""
    prior = PriorTransformer(
        num_attention_heads=2, attention_head_dim=8, embedding_dim=WIDTH, num_layers=1, num_embeddings=8
    )
    return KandinskyV22CombinedPipeline(
        unet=kandinsky_unet(),
        scheduler=scheduler(),
        movq=movq(),
        prior_prior=filled(prior, 9),
        prior_image_encoder=image_encoder(),
        prior_text_encoder=text_encoder(CLIPTextModelWithProjection, 6),
        prior_tokenizer=tokenizer(),
        prior_scheduler=UnCLIPScheduler(variance_type="fixed_small_log", prediction_type="sample"),
        prior_image_processor=processor(),
    )


def instruct_pix2pix() -> StableDiffusionInstructPix2PixPipeline:
    return StableDiffusionInstructPix2PixPipeline(
        vae=vae(),
        text_encoder=text_encoder(),
        tokenizer=tokenizer(),
        unet=unet(in_channels=8),
        scheduler=scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def adapter_state(unet: UNet2DConditionModel, plus: bool = False) -> dict[str, torch.Tensor]:
    """An IP-Adapter for a U-Net, with the names of the published files."""
    width = unet.config.cross_attention_dim
    shapes = {f"image_proj.{name}": shape for name, shape in (_plus(width) if plus else _plain(width)).items()}
    places = [name.removesuffix(".processor") for name in unet.attn_processors if "attn2" in name]
    for number, place in enumerate(places):
        rows = unet.get_submodule(place).to_k.weight.shape[0]
        shapes |= {f"ip_adapter.{2 * number + 1}.to_{kind}_ip.weight": (rows, width) for kind in "kv"}
    generator = torch.Generator().manual_seed(7)
    return {
        name: torch.randn(shape, generator=generator) * (0.3 if len(shape) == 1 else 1.2 / shape[-1] ** 0.5)
        for name, shape in shapes.items()
    }


def _plain(width: int) -> dict[str, tuple[int, ...]]:
    return {
        "proj.weight": (4 * width, WIDTH),
        "proj.bias": (4 * width,),
        "norm.weight": (width,),
        "norm.bias": (width,),
    }


def _plus(width: int, hidden: int = 24, head: int = 64) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "latents": (1, 5, hidden),
        "proj_in.weight": (hidden, WIDTH),
        "proj_in.bias": (hidden,),
        "proj_out.weight": (width, hidden),
        "proj_out.bias": (width,),
        "norm_out.weight": (width,),
        "norm_out.bias": (width,),
    }
    for layer in range(4):
        attention, forward = f"layers.{layer}.0", f"layers.{layer}.1"
        shapes |= {
            f"{attention}.{name}.{kind}": (hidden,) for name in ("norm1", "norm2") for kind in ("weight", "bias")
        }
        shapes |= {f"{attention}.to_q.weight": (head, hidden), f"{attention}.to_kv.weight": (2 * head, hidden)}
        shapes |= {f"{attention}.to_out.weight": (hidden, head)}
        shapes |= {f"{forward}.0.weight": (hidden,), f"{forward}.0.bias": (hidden,)}
        shapes |= {f"{forward}.1.weight": (4 * hidden, hidden), f"{forward}.3.weight": (hidden, 4 * hidden)}
    return shapes


MODELS: dict[str, Callable[[], Any]] = {
    "instruct-pix2pix": instruct_pix2pix,
    "ip-adapter": ip_adapter,
    "ip-adapter-sdxl": ip_adapter_sdxl,
    "kandinsky": kandinsky,
    "sd-image-variations": sd_image_variations,
    "sd-img2img": sd_img2img,
    "sdxl-img2img": sdxl_img2img,
    "stable-unclip": stable_unclip,
    "versatile-diffusion": versatile_diffusion,
}
"""Family -> its small pipeline."""
QUICK = ("sd-img2img",)
"""Families whose engines are made in the quick tests; an export of each of the others takes ten to thirty seconds."""
FAMILIES = [pytest.param(family, marks=() if family in QUICK else pytest.mark.slow) for family in sorted(MODELS)]
"""All families, as parameters of tests that need their engines."""


def saved(family: str, folder: Path) -> Path:
    """Save a family's small pipeline to `folder`."""
    pipeline = MODELS[family]()
    pipeline.save_pretrained(folder)
    if family.startswith("ip-adapter"):
        (folder / "ip_adapter").mkdir()
        save_file(adapter_state(pipeline.unet), folder / "ip_adapter" / ADAPTER)
    if family == "versatile-diffusion":
        # The hub's model is the whole pipeline; its text parts are not read.
        index = folder / "model_index.json"
        content = json.loads(index.read_text()) | {"_class_name": "VersatileDiffusionPipeline"}
        index.write_text(json.dumps(content))
    return folder
