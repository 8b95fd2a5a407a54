"""The family `stable-unclip`: Stable Diffusion 2.1 conditioned on an image's CLIP embedding and an empty text.

This is Stable unCLIP 2.1 of Stability AI. The embedding is one vector, which says what the image shows but not where. A
little noise is added to it, drawn from the image's own seed, and the level of that noise is appended. At strength 1,
denoising begins at pure noise, so the model knows only that vector of the source. At strength s < 1, it begins at the
source's latent, noised to the share s of the schedule.
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


class StableUnclip:
    """The family `stable-unclip`, see the description of the module."""

    name = "stable-unclip"
    license_note = "CreativeML Open RAIL++-M"
    pipelines = ("StableUnCLIPImg2ImgPipeline",)
    parts = (
        "image_encoder/*",
        "feature_extractor/*",
        "image_normalizer/*",
        "image_noising_scheduler/*",
        "text_encoder/*",
        "tokenizer/*",
        "unet/*",
        "vae/*",
        "scheduler/*",
    )
    look = staticmethod(latent_calls.share_of_schedule)
    encode = staticmethod(latent_calls.encode)
    decode = staticmethod(latent_calls.decode)

    def load(self, directory: Path, image_size: int | None = None) -> Model:
        """Read all parts. The text encoder is used once, for the empty prompt, and then released."""
        from diffusers import AutoencoderKL
        from transformers import CLIPVisionModelWithProjection

        from diffclean.families.clip_image import ImageEmbedding
        from diffclean.families.latent import latent_port, pixel_port, vae_components
        from diffclean.families.noised_embedding import NoisedEmbedding
        from diffclean.families.parts import load_part, load_unet, read_config, square_of
        from diffclean.families.schedulers import read_scheduler
        from diffclean.families.text import ClassUNet, empty_prompt

        scheduler = read_scheduler(directory)
        processor = read_config(directory, "feature_extractor", "preprocessor_config.json")
        prompt = empty_prompt(directory)
        encoder = load_part(CLIPVisionModelWithProjection, directory, "image_encoder")
        unet = load_unet(directory, "unet", context=prompt.shape[-1], class_embed_type="projection")
        vae = load_part(AutoencoderKL, directory, "vae")
        size = square_of(image_size, unet, vae)
        width = encoder.config.projection_dim
        embedding = Port("image_embeds", "float32", (2 * width,))
        sample, predicted = (latent_port(name, vae, size) for name in ("sample", "predicted"))
        inputs = (sample, Port("timestep", "float32", ()), embedding)
        look = NoisedEmbedding(ImageEmbedding(encoder, processor, size), directory).eval()
        components = {
            "image_encoder": Component(look, (pixel_port(size), Port("noise", "float32", (width,))), (embedding,)),
            "unet": Component(ClassUNet(unet, prompt).eval(), inputs, (predicted,)),
            **vae_components(vae, size),
        }
        return Model(self.name, components, scheduler, size)

    def condition(self, call: Call, pixels: Tensor, noise: Mapping[str, Tensor], look: Look) -> dict[str, Tensor]:
        """The embedding of the image with noise from the image's own seed, and the level of the noise."""
        (embedding,) = call("image_encoder", {"pixels": pixels, "noise": noise["image_encoder"]})
        return {"image_embeds": embedding}

    def features(self, call: Call, pixels: Tensor, noise: Mapping[str, Tensor]) -> Tensor:
        """The embedding of the image without noise, and without the level of the noise."""
        (embedding,) = call("image_encoder", {"pixels": pixels, "noise": noise["image_encoder"]})
        return embedding[:, : embedding.shape[1] // 2]

    def withhold(self, condition: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Zeros, also in place of the noise level, as in diffusers; the text is empty in both halves."""
        return {"image_embeds": condition["image_embeds"].new_zeros(condition["image_embeds"].shape)}
