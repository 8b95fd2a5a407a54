"""The family `versatile-diffusion`: a U-Net conditioned on all CLIP tokens of a picture.

Xu et al., "Versatile Diffusion", arXiv 2211.08332 (shi-labs/versatile-diffusion), with which Struppek et al.
regenerated poisoned data (arXiv 2310.06372). Only the image variation flow of the model is read, and none of the parts
for text. There is one token for the whole picture and one for each patch. The sampler therefore knows where things are,
so more of a picture is kept than with a single embedding, and perhaps more of a large trigger too. At strength 1,
denoising begins at pure noise, so the model knows only the tokens of the source. At strength s < 1, it begins at the
source's latent, noised to the share s of the schedule.
"""

from __future__ import annotations

from pathlib import Path

from diffclean.families import latent_calls
from diffclean.families.base import Component, Model, Port


class VersatileDiffusion:
    """The family `versatile-diffusion`, see the description of the module."""

    name = "versatile-diffusion"
    license_note = "MIT; its model card says research only"
    pipelines = ("VersatileDiffusionPipeline", "VersatileDiffusionImageVariationPipeline")
    parts = ("image_encoder/*", "image_feature_extractor/*", "image_unet/*", "vae/*", "scheduler/*")
    look = staticmethod(latent_calls.share_of_schedule)
    features = staticmethod(latent_calls.features)
    condition = staticmethod(latent_calls.tokens)
    withhold = staticmethod(latent_calls.zeros)
    encode = staticmethod(latent_calls.encode)
    decode = staticmethod(latent_calls.decode)

    def load(self, directory: Path, image_size: int | None = None) -> Model:
        """Read `image_encoder/`, `image_feature_extractor/`, `image_unet/`, `vae/` and `scheduler/`."""
        from diffusers import AutoencoderKL
        from transformers import CLIPVisionModelWithProjection

        from diffclean.families.latent import latent_port, pixel_port, vae_components
        from diffclean.families.many_tokens import ImageTokens, TokensUNet
        from diffclean.families.parts import load_part, load_unet, read_config, square_of
        from diffclean.families.schedulers import read_scheduler

        scheduler = read_scheduler(directory)
        processor = read_config(directory, "image_feature_extractor", "preprocessor_config.json")
        encoder = load_part(CLIPVisionModelWithProjection, directory, "image_encoder")
        unet = load_unet(directory, "image_unet", context=encoder.config.projection_dim)
        vae = load_part(AutoencoderKL, directory, "vae")
        size = square_of(image_size, unet, vae)
        look = ImageTokens(encoder, processor, size).eval()
        no_picture = look.of_no_picture()
        tokens = Port("tokens", "float32", tuple(no_picture.shape[1:]))
        sample, predicted = (latent_port(name, vae, size) for name in ("sample", "predicted"))
        inputs = (sample, Port("timestep", "float32", ()), tokens, Port("told", "float32", ()))
        components = {
            "image_encoder": Component(look, (pixel_port(size),), (tokens,)),
            "unet": Component(TokensUNet(unet, no_picture).eval(), inputs, (predicted,)),
            **vae_components(vae, size),
        }
        return Model(self.name, components, scheduler, size)
