"""Small models of every family with random weights, and their engines: made once a session."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from small_models import SIDE, saved
from torch import Tensor

from diffclean.data.decode import Limits, decode_for
from diffclean.data.fit import Fit, to_square

Made = Callable[[str], Path]
DRAWS = {
    "diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion": "sample",
    "diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl": "sample",
    "diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion_img2img": "sample",
    "diffusers.pipelines.stable_diffusion.pipeline_stable_unclip_img2img": "sample",
    "diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion_image_variation": "sample",
    "diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl_img2img": "sample",
    "diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion_instruct_pix2pix": "sample",
    "diffusers.pipelines.kandinsky2_2.pipeline_kandinsky2_2": "sample",
    "diffusers.pipelines.kandinsky2_2.pipeline_kandinsky2_2_img2img": "sample",
    "diffusers.pipelines.deprecated.versatile_diffusion.pipeline_versatile_diffusion_image_variation": "sample",
    "diffusers.models.autoencoders.vae": "vae_encoder",
}
"""Where diffusers draws noise the size of a latent -> which of the sampler's it gets instead."""
STEPPING = [f"diffusers.schedulers.scheduling_{name}" for name in ("euler_ancestral_discrete", "lcm", "tcd")]
"""Where diffusers draws noise between steps, one after another."""


def of_image(pipeline: Any, image: Image.Image, **arguments: Any) -> Any:
    """The call of a pipeline that makes variations."""
    return pipeline(image=image, **arguments)


def of_image_without_words(pipeline: Any, image: Image.Image, **arguments: Any) -> Any:
    return pipeline(image=image, prompt="", **arguments)


def of_image_prompt(pipeline: Any, image: Image.Image, **arguments: Any) -> Any:
    """With an IP-Adapter."""
    return pipeline(ip_adapter_image=image, prompt="", **arguments)


def by_image_guidance(pipeline: Any, image: Image.Image, guidance_scale: float, **arguments: Any) -> Any:
    """With the same text in all terms, the guidance by the text has no effect; it must be on for the other."""
    words = 2.0 if guidance_scale > 1 else 1.0
    return pipeline(image=image, prompt="", guidance_scale=words, image_guidance_scale=guidance_scale, **arguments)


def by_both_halves(pipeline: Any, image: Image.Image, **arguments: Any) -> Any:
    """Kandinsky's way of making variations: the prior encodes the image, the decoder makes the picture."""
    pipeline.decoder_pipe.scheduler = pipeline.scheduler
    pipeline.prior_pipe.set_progress_bar_config(disable=True)
    told = pipeline.prior_pipe.interpolate([image], [1.0], num_inference_steps=2)
    embeds = {"image_embeds": told.image_embeds, "negative_image_embeds": told.negative_image_embeds}
    return pipeline.decoder_pipe(**embeds, height=SIDE, width=SIDE, **arguments)


CALLS: dict[str, Callable[..., Any]] = {
    "KandinskyV22CombinedPipeline": by_both_halves,
    "StableDiffusionImg2ImgPipeline": of_image_without_words,
    "StableDiffusionInstructPix2PixPipeline": by_image_guidance,
    "StableDiffusionPipeline": of_image_prompt,
    "StableDiffusionXLImg2ImgPipeline": of_image_without_words,
    "StableDiffusionXLPipeline": of_image_prompt,
    "StableUnCLIPImg2ImgPipeline": of_image_without_words,
}
"""How a pipeline is called, if it is not like `of_image`."""


@pytest.fixture(scope="session")
def model_of(once: Callable[..., Path]) -> Made:
    """`model_of(family)`: its small model's directory. Tests that change one copy it first."""
    return cache(lambda family: once(f"families/{family}", partial(saved, family)))


@pytest.fixture(scope="session")
def engine_of(model_of: Made) -> Made:
    """`engine_of(family)`: the engine directory of its small model, in the session's cache."""
    from diffclean.export.cache import cached_engine
    from diffclean.families.registry import recipe_for

    return cache(lambda family: cached_engine(recipe_for(str(model_of(family)))))


@pytest.fixture(scope="session")
def squares(tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    """(2, S, S, 3) uint8: pictures that are not square and have an alpha channel, as `variate` reads them."""
    rng = np.random.default_rng(0)
    made = []
    for number in range(2):
        colours = np.kron(rng.integers(0, 256, (5, 7, 4)), np.ones((9, 9, 1))).astype(np.uint8)
        path = tmp_path_factory.mktemp("picture") / f"{number}.png"
        Image.fromarray(colours, "RGBA").save(path)
        image, _ = decode_for(path.read_bytes(), SIDE, Limits())
        made.append(to_square(image, SIDE, Fit.SQUASH)[0])
    return np.stack(made)


def _next(draws: Iterator[Tensor], shape: tuple[int, ...], **_: Any) -> Tensor:
    """The next noise; when there is none left, zeros, for some draw noise of weight 0 after the last step."""
    return next(draws, torch.zeros(shape))


@pytest.fixture
def by_diffusers(monkeypatch: pytest.MonkeyPatch) -> Callable[..., np.ndarray]:
    """`by_diffusers(pipeline, square, noise, **arguments)`: the grey levels it makes, with the sampler's noise."""

    def made(pipeline: Any, square: np.ndarray, noise: dict[str, Tensor], **arguments: Any) -> np.ndarray:
        def drawn(name: str) -> Callable[..., Tensor]:
            return lambda shape, **_: noise[name if len(shape) == 4 else "image_encoder"]

        for place, name in DRAWS.items():
            monkeypatch.setattr(f"{place}.randn_tensor", drawn(name))
        for place in STEPPING:
            between: Iterator[Tensor] = iter([value for name, value in noise.items() if name.startswith("after step")])
            monkeypatch.setattr(f"{place}.randn_tensor", partial(_next, between))
        images = CALLS.get(type(pipeline).__name__, of_image)(
            pipeline, Image.fromarray(square), output_type="np", **arguments
        ).images
        return np.asarray((images[0] * 255).round())

    return made
