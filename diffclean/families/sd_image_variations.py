"""The family `sd-image-variations`: Stable Diffusion 1.x conditioned on an image's CLIP embedding in place of a text.

This is Justin Pinkney's model (lambdalabs/sd-image-variations-diffusers). The embedding is one vector, which says what
the image shows but not where. At strength 1, denoising begins at pure noise, so the model knows only that vector of the
source. At strength s < 1, it begins at the source's latent, noised to the share s of the schedule.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from diffclean.families import latent_calls
from diffclean.families.base import Component, Look, Model, Port

if TYPE_CHECKING:
    from torch import Tensor

    from diffclean.families.base import Call


class SdImageVariations:
    """The family `sd-image-variations`, see the description of the module."""

    name = "sd-image-variations"
    license_note = "CreativeML Open RAIL-M"
    pipelines = ("StableDiffusionImageVariationPipeline",)
    parts = ("image_encoder/*", "feature_extractor/*", "unet/*", "vae/*", "scheduler/*")
    look = staticmethod(latent_calls.share_of_schedule)
    features = staticmethod(latent_calls.features)
    encode = staticmethod(latent_calls.encode)
    decode = staticmethod(latent_calls.decode)

    def load(self, directory: Path, image_size: int | None = None) -> Model:
        """Read `image_encoder/`, `feature_extractor/`, `unet/`, `vae/` and `scheduler/`, but not the safety checker."""
        from diffusers import AutoencoderKL
        from transformers import CLIPVisionModelWithProjection

        from diffclean.families.clip_image import ImageEmbedding
        from diffclean.families.latent import latent_port, pixel_port, vae_components
        from diffclean.families.one_token import EmbeddingUNet, collapse_cross_attention
        from diffclean.families.parts import load_part, load_unet, read_config, square_of
        from diffclean.families.schedulers import read_scheduler

        scheduler = read_scheduler(directory)
        processor = read_config(directory, "feature_extractor", "preprocessor_config.json")
        encoder = load_part(CLIPVisionModelWithProjection, directory, "image_encoder")
        unet = load_unet(directory, "unet", context=encoder.config.projection_dim)
        vae = load_part(AutoencoderKL, directory, "vae")
        size = square_of(image_size, unet, vae)
        collapse_cross_attention(unet)
        embedding = Port("image_embeds", "float32", (encoder.config.projection_dim,))
        sample, predicted = (latent_port(name, vae, size) for name in ("sample", "predicted"))
        inputs = (sample, Port("timestep", "float32", ()), embedding)
        look = ImageEmbedding(encoder, processor, size).eval()
        components = {
            "image_encoder": Component(look, (pixel_port(size),), (embedding,)),
            "unet": Component(EmbeddingUNet(unet).eval(), inputs, (predicted,)),
            **vae_components(vae, size),
        }
        return Model(self.name, components, scheduler, size)

    def condition(self, call: Call, pixels: Tensor, noise: Mapping[str, Tensor], look: Look) -> dict[str, Tensor]:
        """The embedding of the image."""
        (embedding,) = call("image_encoder", {"pixels": pixels})
        return {"image_embeds": embedding}

    def withhold(self, condition: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Zeros in place of the embedding, with which the model was trained."""
        return {"image_embeds": condition["image_embeds"].new_zeros(condition["image_embeds"].shape)}
