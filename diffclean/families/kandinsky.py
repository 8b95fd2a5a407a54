"""The family `kandinsky`: Kandinsky 2.2, a U-Net that is told an image's CLIP embedding.

Razzhigaev et al., "Kandinsky", arXiv 2310.03502. The model has two halves. The prior makes an image embedding of a
text; for a variation it is not needed, because the image encoder of the prior gives the embedding itself. The decoder
makes the picture. The embedding is one vector, which says what the image shows but not where. At strength 1, denoising
begins at pure noise, so the model knows only that vector of the source. At strength s < 1, it begins at the source's
latent, noised to the share s of the schedule.

The two halves are two models on the hub. A model directory has the layout of diffusers' combined pipeline: the parts of
the decoder, and `prior_image_encoder/` and `prior_image_processor/` of the prior.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from diffclean.errors import DiffcleanError
from diffclean.families import latent_calls
from diffclean.families.base import Component, Look, Model, Port

if TYPE_CHECKING:
    from torch import Tensor

    from diffclean.families.base import Call

_PRIOR = "prior_image_encoder"


class Kandinsky:
    """The family `kandinsky`, see the description of the module."""

    name = "kandinsky"
    license_note = "that of the checkpoint; Apache 2.0 for Kandinsky 2.2"
    pipelines = (
        "KandinskyV22CombinedPipeline",
        "KandinskyV22Img2ImgCombinedPipeline",
        "KandinskyV22Pipeline",
        "KandinskyV22Img2ImgPipeline",
    )
    parts = (f"{_PRIOR}/*", "prior_image_processor/*", "unet/*", "movq/*", "scheduler/*")
    look = staticmethod(latent_calls.share_of_schedule)
    features = staticmethod(latent_calls.features)
    withhold = staticmethod(latent_calls.zeros)
    decode = staticmethod(latent_calls.decode)

    def load(self, directory: Path, image_size: int | None = None) -> Model:
        """Read the image encoder of the prior, and all parts of the decoder."""
        import torch
        from transformers import CLIPVisionModelWithProjection

        from diffclean.families.clip_image import ImageEmbedding
        from diffclean.families.kandinsky_parts import EmbeddingPairUNet, load_movq, movq_components
        from diffclean.families.latent import latent_port, pixel_port
        from diffclean.families.parts import load_part, load_unet, read_config, square_of
        from diffclean.families.schedulers import read_scheduler

        scheduler = read_scheduler(directory)
        _check_prior(directory)
        processor = read_config(directory, "prior_image_processor", "preprocessor_config.json")
        encoder = load_part(CLIPVisionModelWithProjection, directory, _PRIOR)
        width, side = encoder.config.projection_dim, encoder.config.image_size
        unet = load_unet(
            directory,
            "unet",
            context=None,
            in_channels=read_config(directory, "unet").get("out_channels", 0) // 2,  # the other half is a variance
            addition_embed_type="image",
            encoder_hid_dim=width,
            encoder_hid_dim_type="image_proj",
        )
        movq = load_movq(directory)
        size = square_of(image_size, unet, movq)
        with torch.no_grad():  # as in diffusers, "nothing" is a picture of zeros, which is one of the average colour
            nothing = encoder(torch.zeros(1, 3, side, side)).image_embeds
        embeds = Port("image_embeds", "float32", (width,))
        sample, predicted = (latent_port(name, movq, size) for name in ("sample", "predicted"))
        inputs = (sample, Port("timestep", "float32", ()), embeds, Port("told", "float32", ()))
        look = ImageEmbedding(encoder, processor, size).eval()
        components = {
            "image_encoder": Component(look, (pixel_port(size),), (embeds,)),
            "unet": Component(EmbeddingPairUNet(unet, nothing).eval(), inputs, (predicted,)),
            **movq_components(movq, size),
        }
        return Model(self.name, components, scheduler, size)

    def condition(self, call: Call, pixels: Tensor, noise: Mapping[str, Tensor], look: Look) -> dict[str, Tensor]:
        """The embedding of the image, and the flag that it is used."""
        (embedding,) = call("image_encoder", {"pixels": pixels})
        return {"image_embeds": embedding, "told": embedding.new_ones(len(embedding))}

    def encode(self, call: Call, pixels: Tensor, noise: Mapping[str, Tensor]) -> Tensor:
        """The latent of MoVQ, which has no posterior to sample from."""
        (latent,) = call("vae_encoder", {"pixels": pixels})
        return latent


def _check_prior(directory: Path) -> None:
    """Tell somebody who has only the decoder what is missing."""
    if not (directory / _PRIOR).is_dir():
        raise DiffcleanError(
            f"{directory} is only the decoder of Kandinsky 2.2: {_PRIOR}/ is missing.",
            f"Copy image_encoder/ of the prior (kandinsky-2-2-prior) to {_PRIOR}/, and its image_processor/ to "
            "prior_image_processor/. Or give the recipe: --engine kandinsky",
        )
