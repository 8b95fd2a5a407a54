"""The family `flux-redux`: FLUX.1 conditioned on a picture by FLUX.1 Redux (Black Forest Labs, 2024).

SigLIP's tokens of the picture take the place of a text's tokens in a flow-matching transformer; the text itself is
empty. Tokens belong to patches at their places, so that much of the picture reaches the denoiser. At strength 1,
denoising begins at pure noise; at a strength s < 1 it begins at the latent of the source, noised to the share s of the
schedule.

FLUX.1-dev was distilled with guidance: it is given the scale of guidance as a number and runs once a step.
FLUX.1-schnell is given none; with it, a guidance other than 1 is classifier-free guidance against tokens of zeros.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffclean.errors import DiffcleanError
from diffclean.families import latent_calls
from diffclean.families.base import Component, Look, Model, Port

if TYPE_CHECKING:
    from torch import Tensor

    from diffclean.families.base import Call


class FluxRedux:
    """The family `flux-redux`, see the description of the module."""

    name = "flux-redux"
    license_note = "FLUX.1 [dev] Non-Commercial License: not for production without a licence of Black Forest Labs"
    pipelines = ("FluxPipeline", "FluxPriorReduxPipeline")
    parts = ("image_encoder/*", "image_embedder/*", "feature_extractor/*", "transformer/*", "vae/*", "scheduler/*")
    parametrisations = ("flow",)
    look = staticmethod(latent_calls.share_of_schedule)
    features = staticmethod(latent_calls.features)
    encode = staticmethod(latent_calls.encode)
    decode = staticmethod(latent_calls.decode)

    def load(self, directory: Path, image_size: int | None = None) -> Model:
        """Read the transformer, VAE and scheduler of FLUX.1, and the encoder and embedder of Redux.

        The text encoders are not read.
        """
        from diffusers import AutoencoderKL, FluxTransformer2DModel
        from diffusers.pipelines.flux.modeling_flux import ReduxImageEncoder
        from transformers import SiglipVisionModel

        from diffclean.families.flux_modules import ReduxTokens, ReduxTransformer
        from diffclean.families.latent import latent_factor, latent_port, pixel_port, vae_components
        from diffclean.families.parts import checked_size, load_part, read_config
        from diffclean.families.schedulers import read_scheduler

        scheduler = read_scheduler(directory, parametrisations=self.parametrisations)
        _check_redux(directory)
        processor = read_config(directory, "feature_extractor", "preprocessor_config.json")
        encoder = load_part(SiglipVisionModel, directory, "image_encoder")
        embedder = load_part(ReduxImageEncoder, directory, "image_embedder")
        transformer = load_part(FluxTransformer2DModel, directory, "transformer")
        vae = load_part(AutoencoderKL, directory, "vae")
        _check_widths(encoder.config, embedder.config, transformer.config, vae.config)
        size = checked_size(image_size, image_size or _native_size(vae.config), latent_factor(vae))
        count = (encoder.config.image_size // encoder.config.patch_size) ** 2
        tokens = Port("tokens", "float32", (count, embedder.config.txt_in_features))
        sample, predicted = (latent_port(name, vae, size) for name in ("sample", "predicted"))
        inputs = [sample, Port("timestep", "float32", ()), tokens]
        if transformer.config.guidance_embeds:
            inputs.append(Port("guidance", "float32", ()))
        look = ReduxTokens(encoder, embedder, processor, size).eval()
        denoiser = ReduxTransformer(transformer, count, sample.shape[-1]).eval()
        components = {
            "image_encoder": Component(look, (pixel_port(size),), (tokens,)),
            "unet": Component(denoiser, tuple(inputs), (predicted,)),
            **vae_components(vae, size, shifted=True),
        }
        return Model(self.name, components, scheduler | _of_pipeline(scheduler, sample), size)

    def condition(self, call: Call, pixels: Tensor, noise: Mapping[str, Tensor], look: Look) -> dict[str, Tensor]:
        """The tokens of the image."""
        (tokens,) = call("image_encoder", {"pixels": pixels})
        return {"tokens": tokens}

    def withhold(self, condition: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Zeros in place of the tokens, as they stand for the text."""
        return {"tokens": condition["tokens"].new_zeros(condition["tokens"].shape)}


def _check_redux(directory: Path) -> None:
    missing = [part for part in ("transformer", "image_embedder") if not (directory / part / "config.json").is_file()]
    if missing:
        raise DiffcleanError(
            f"{directory} is only one half of FLUX.1 Redux: {missing[0]}/ is missing.",
            "The transformer/, vae/ and scheduler/ are those of FLUX.1-dev; the image_encoder/, image_embedder/ and "
            "feature_extractor/ are those of FLUX.1-Redux-dev. Name both in a recipe (`path` and `also`), or copy the "
            "folders of the one into the other.",
        )


def _check_widths(encoder: Any, embedder: Any, transformer: Any, vae: Any) -> None:
    pairs = {
        "the encoder's tokens and the embedder": (encoder.hidden_size, embedder.redux_dim),
        "the embedder's tokens and the transformer": (embedder.txt_in_features, transformer.joint_attention_dim),
        "the VAE's latents, in squares of two by two, and the transformer": (
            4 * vae.latent_channels,
            transformer.in_channels,
        ),
    }
    for what, (first, second) in pairs.items():
        if first != second:
            raise DiffcleanError(
                f"The parts belong to different models: {what} have widths {first} and {second}.",
                "Copy all parts from FLUX.1-dev and FLUX.1-Redux-dev.",
            )


def _native_size(vae: Any) -> int:
    from diffclean.families.parts import LARGEST_NATIVE

    if type(vae.sample_size) is not int or not 0 < vae.sample_size <= LARGEST_NATIVE:
        raise DiffcleanError(
            f"The VAE's sample_size is {vae.sample_size!s:.40}; expected a number up to {LARGEST_NATIVE}.",
            "Give the size: `size` 1024",
        )
    return vae.sample_size


def _of_pipeline(scheduler: Mapping[str, Any], sample: Port) -> dict[str, Any]:
    """What diffusers' `FluxPipeline` tells its scheduler at every run: where the sigmas end, and the shift `mu`.

    The shift grows with the number of places of the latent, since noise hides a larger picture less (Esser et al.,
    arXiv 2403.03206, section 5.3.2).
    """
    places = sample.shape[-1] ** 2 // 4
    fewest, most = scheduler.get("base_image_seq_len", 256), scheduler.get("max_image_seq_len", 4096)
    lowest, highest = scheduler.get("base_shift", 0.5), scheduler.get("max_shift", 1.15)
    slope = (highest - lowest) / (most - fewest)
    return {"sigmas": "to 1/steps", "mu": places * slope + lowest - slope * fewest}
