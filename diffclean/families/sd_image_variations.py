"""The family `sd-image-variations`: Stable Diffusion 1.x told an image's CLIP embedding in place of a text.

Justin Pinkney's model (lambdalabs/sd-image-variations-diffusers). The embedding is one vector: what the image shows,
not where; so strength 1 begins at pure noise and only that vector is known of the source. Strength s < 1 begins at the
source's latent, noised to the share s of the schedule.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from diffclean.families.base import Component, Look, Model, Port

if TYPE_CHECKING:
    from torch import Tensor

    from diffclean.families.base import Call


class SdImageVariations:
    """See the module."""

    name = "sd-image-variations"
    license_note = "CreativeML Open RAIL-M"
    pipelines = ("StableDiffusionImageVariationPipeline",)
    parts = ("image_encoder/*", "feature_extractor/*", "unet/*", "vae/*", "scheduler/*")

    def load(self, directory: Path, image_size: int | None = None) -> Model:
        """Read `image_encoder/`, `feature_extractor/`, `unet/`, `vae/` and `scheduler/`; the safety checker is not."""
        from diffusers import AutoencoderKL, UNet2DConditionModel
        from transformers import CLIPVisionModelWithProjection

        from diffclean.families.one_token import EmbeddingUNet, collapse_cross_attention
        from diffclean.families.parts import (
            ImageEmbedding,
            LatentDecoder,
            LatentEncoder,
            checked_size,
            latent_factor,
            load_part,
            read_config,
        )

        scheduler = read_config(directory, "scheduler", "scheduler_config.json")
        processor = read_config(directory, "feature_extractor", "preprocessor_config.json")
        unet = load_part(UNet2DConditionModel, directory, "unet")
        vae = load_part(AutoencoderKL, directory, "vae")
        encoder = load_part(CLIPVisionModelWithProjection, directory, "image_encoder")
        factor = latent_factor(vae)
        size = checked_size(image_size, unet.config.sample_size * factor, factor)
        collapse_cross_attention(unet)
        pixels = Port("pixels", "uint8", (size, size, 3))
        sample = Port("sample", "float32", (unet.config.in_channels, size // factor, size // factor))
        embedding = Port("image_embeds", "float32", (encoder.config.projection_dim,))
        components = {
            "image_encoder": Component(ImageEmbedding(encoder, processor, size).eval(), (pixels,), (embedding,)),
            "unet": Component(
                EmbeddingUNet(unet).eval(),
                (sample, Port("timestep", "float32", ()), embedding),
                (Port("predicted", "float32", sample.shape),),
            ),
            "vae_decoder": Component(LatentDecoder(vae).eval(), (sample,), (pixels, Port("finite", "bool", ()))),
            "vae_encoder": Component(
                LatentEncoder(vae).eval(),
                (pixels, Port("noise", "float32", sample.shape)),
                (Port("latent", "float32", sample.shape),),
            ),
        }
        return Model(self.name, components, scheduler, size)

    def look(self, strength: float) -> Look:
        """The share of the schedule that is run."""
        return Look(start=strength, level=strength)

    def condition(self, call: Call, pixels: Tensor, noise: Mapping[str, Tensor], look: Look) -> dict[str, Tensor]:
        """The image's embedding."""
        (embedding,) = call("image_encoder", {"pixels": pixels})
        return {"image_embeds": embedding}

    def withhold(self, condition: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A zero in place of the embedding, as the model was trained."""
        return {"image_embeds": condition["image_embeds"].new_zeros(condition["image_embeds"].shape)}

    def encode(self, call: Call, pixels: Tensor, noise: Mapping[str, Tensor]) -> Tensor:
        """A draw from the VAE's posterior."""
        (latent,) = call("vae_encoder", {"pixels": pixels, "noise": noise["vae_encoder"]})
        return latent

    def decode(self, call: Call, sample: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels and the finite flag, both from the decoder graph."""
        pixels, finite = call("vae_decoder", {"sample": sample})
        return pixels, finite
