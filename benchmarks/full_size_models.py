"""Model directories in the shapes of published models, with random weights in fp16, for `export_full_size`.

A network is built without memory, in the shapes of its real class, and then filled in half precision, so that not even
the largest is ever held in fp32. The weights are scaled like those of a fresh network, so that its outputs are finite.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

CLIP_L = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "projection_dim": 768}
CLIP_H = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "projection_dim": 1024}
TEXT_L = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "projection_dim": 768}
TEXT_H = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 23, "projection_dim": 512}
TEXT_BIG_G = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "projection_dim": 1280}
SIGLIP: dict[str, Any] = {
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
}
OF_SD = {"block_out_channels": (320, 640, 1280, 1280), "layers_per_block": 2}
SD_1: dict[str, Any] = {**OF_SD, "sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8}
SD_2_UNCLIP: dict[str, Any] = {
    **OF_SD,
    "sample_size": 96,
    "cross_attention_dim": 1024,
    "attention_head_dim": (5, 10, 20, 20),
    "use_linear_projection": True,
    "class_embed_type": "projection",
    "projection_class_embeddings_input_dim": 2048,
}
SDXL: dict[str, Any] = {
    "sample_size": 128,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 2,
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
FLUX: dict[str, Any] = {
    "in_channels": 64,
    "num_layers": 1,  # of 19
    "num_single_layers": 2,  # of 38
    "attention_head_dim": 128,
    "num_attention_heads": 24,
    "joint_attention_dim": 4096,
    "pooled_projection_dim": 768,
    "guidance_embeds": True,
    "axes_dims_rope": (16, 56, 56),
}
FLUX_VAE: dict[str, Any] = {
    "latent_channels": 16,
    "scaling_factor": 0.3611,
    "shift_factor": 0.1159,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
}
STABLE_DIFFUSION = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
}
SIZES = {"flux-redux": 512, "sdxl-img2img": 512}
"""Family -> the side of the square in pixels, if it is not the model's own."""
NOTES = {
    "sdxl-img2img": "all parts are whole; 512 px, the size of SDXL-Turbo, for which the checks take a quarter of the "
    "time",
    "flux-redux": "the transformer has its full width and 1 of 19 double and 2 of 38 single blocks: 12 billion weights "
    "in fp32 would not fit this machine; all other parts are whole; 512 px",
}
"""Family -> what is not as published."""
Say = Callable[[str], None]


def saved(family: str, place: Path, say: Say) -> dict[str, int]:
    """Write a model directory, one part after the other. Returns the number of parameters of each part."""
    import torch

    torch.manual_seed(0)
    pipeline, parts = MODELS[family]
    parameters = {}
    for name, part in parts().items():
        made = part()
        if isinstance(made, torch.nn.Module):
            parameters[name] = sum(each.numel() for each in made.parameters())
        made.save_pretrained(place / name)
        say(f"{name} is written")
    (place / "model_index.json").write_text(json.dumps({"_class_name": pipeline}))
    return parameters


def filled(cls: Any, *arguments: Any, **named: Any) -> Any:
    """A network of a class with random weights in half precision: those of linear layers within 1 / sqrt(inputs)."""
    import torch

    with torch.device("meta"):
        module = cls(*arguments, **named).half()
    module.to_empty(device="cpu")
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.ndim > 1:
                bound = parameter[0].numel() ** -0.5
                parameter.uniform_(-bound, bound)
            else:
                parameter.fill_(0.0 if name.endswith("bias") else 1.0)
    return module


def of_sd_1() -> dict[str, Callable[[], Any]]:
    """Stable Diffusion 1.x with CLIP ViT-L/14 in place of the text."""
    from diffusers import DDIMScheduler, UNet2DConditionModel
    from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection

    return {
        "unet": lambda: filled(UNet2DConditionModel, **SD_1),
        "vae": lambda: vae(512),
        "image_encoder": lambda: filled(CLIPVisionModelWithProjection, vision(CLIP_L, "quick_gelu")),
        "scheduler": lambda: DDIMScheduler(**STABLE_DIFFUSION),
        "feature_extractor": CLIPImageProcessor,
    }


def of_unclip() -> dict[str, Callable[[], Any]]:
    """Stable Diffusion 2.1 unCLIP with CLIP ViT-H/14."""
    from diffusers import DDIMScheduler, DDPMScheduler, UNet2DConditionModel
    from diffusers.pipelines.stable_diffusion import StableUnCLIPImageNormalizer
    from transformers import CLIPImageProcessor, CLIPTextModel, CLIPVisionModelWithProjection

    return {
        "unet": lambda: filled(UNet2DConditionModel, **SD_2_UNCLIP),
        "vae": lambda: vae(768),
        "image_encoder": lambda: filled(CLIPVisionModelWithProjection, vision(CLIP_H, "gelu")),
        "text_encoder": lambda: filled(CLIPTextModel, text(TEXT_H, 16, "gelu")),
        "tokenizer": tokenizer,
        "image_normalizer": lambda: StableUnCLIPImageNormalizer(1024).half(),
        "image_noising_scheduler": lambda: DDPMScheduler(beta_schedule="squaredcos_cap_v2"),
        "scheduler": lambda: DDIMScheduler(**STABLE_DIFFUSION, prediction_type="v_prediction"),
        "feature_extractor": CLIPImageProcessor,
    }


def of_sdxl() -> dict[str, Callable[[], Any]]:
    """Stable Diffusion XL 1.0 with both text encoders."""
    from diffusers import EulerDiscreteScheduler, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    schedule = {name: value for name, value in STABLE_DIFFUSION.items() if name != "clip_sample"}
    return {
        "unet": lambda: filled(UNet2DConditionModel, **SDXL),
        "vae": lambda: vae(1024, scaling_factor=0.13025, force_upcast=True),
        "text_encoder": lambda: filled(CLIPTextModel, text(TEXT_L, 12, "quick_gelu")),
        "text_encoder_2": lambda: filled(CLIPTextModelWithProjection, text(TEXT_BIG_G, 20, "gelu")),
        "tokenizer": tokenizer,
        "tokenizer_2": tokenizer,
        "scheduler": lambda: EulerDiscreteScheduler(**schedule, timestep_spacing="leading", steps_offset=1),
    }


def of_flux() -> dict[str, Callable[[], Any]]:
    """FLUX.1 Redux: the transformer of FLUX.1-dev, less deep, and SigLIP with the embedder of Redux."""
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel
    from diffusers.pipelines.flux.modeling_flux import ReduxImageEncoder
    from transformers import SiglipImageProcessor, SiglipVisionConfig, SiglipVisionModel

    seen = SiglipVisionConfig(**SIGLIP, image_size=384, patch_size=14)
    return {
        "transformer": lambda: filled(FluxTransformer2DModel, **FLUX),
        "vae": lambda: vae(1024, **FLUX_VAE),
        "image_encoder": lambda: filled(SiglipVisionModel, seen),
        "image_embedder": lambda: filled(ReduxImageEncoder, redux_dim=1152, txt_in_features=4096),
        "feature_extractor": lambda: SiglipImageProcessor(size={"height": 384, "width": 384}),
        "scheduler": lambda: FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
    }


def vae(side: int, **others: Any) -> Any:
    """The VAE of Stable Diffusion, or one of its shape."""
    from diffusers import AutoencoderKL

    shape = {
        "block_out_channels": (128, 256, 512, 512),
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "layers_per_block": 2,
        "latent_channels": 4,
        "sample_size": side,
    }
    return filled(AutoencoderKL, **(shape | others))


def vision(shape: dict[str, Any], activation: str) -> Any:
    """The configuration of one of CLIP's image encoders."""
    from transformers import CLIPVisionConfig

    return CLIPVisionConfig(**shape, num_attention_heads=16, image_size=224, patch_size=14, hidden_act=activation)


def text(shape: dict[str, Any], heads: int, activation: str) -> Any:
    """The configuration of one of CLIP's text encoders."""
    from transformers import CLIPTextConfig

    return CLIPTextConfig(**shape, num_attention_heads=heads, hidden_act=activation)


def tokenizer() -> Any:
    """A vocabulary of three words, since the prompt is empty."""
    from transformers import CLIPTokenizer

    words = {word: number for number, word in enumerate(["<|startoftext|>", "<|endoftext|>", "!"])}
    return CLIPTokenizer(vocab=words, merges=[], pad_token="!", model_max_length=77)


MODELS: dict[str, tuple[str, Callable[[], dict[str, Callable[[], Any]]]]] = {
    "flux-redux": ("FluxPipeline", of_flux),
    "sd-image-variations": ("StableDiffusionImageVariationPipeline", of_sd_1),
    "sdxl-img2img": ("StableDiffusionXLPipeline", of_sdxl),
    "stable-unclip": ("StableUnCLIPImg2ImgPipeline", of_unclip),
}
"""Family -> the pipeline of its model, and what makes its parts."""
