"""Checkpoints for few steps: LCM's own kind of U-Net, and the shipped recipe of a Turbo model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from small_models import text_encoder, tokenizer, unet, vae

from diffclean.errors import DiffcleanError
from diffclean.export.cache import cached_engine
from diffclean.families.parts import load_unet
from diffclean.families.registry import family_named, load_model, load_recipe, recipe_for
from diffclean.families.seeds import noise_for
from diffclean.runtime.choose import open_engine
from diffclean.variation.sampler import Sampler, SamplerSettings
from diffclean.variation.schedule import scheduler_for

MILD = {"beta_start": 0.00085, "beta_end": 0.002, "beta_schedule": "scaled_linear"}


@pytest.fixture(scope="module")
def lcm(once: Callable[..., Path]) -> Path:
    """A latent consistency model: its U-Net is told the scale of the guidance that it was distilled with."""
    return once("lcm/model", save_lcm)


def save_lcm(place: Path) -> None:
    diffusers.LatentConsistencyModelPipeline(
        vae=vae(),
        text_encoder=text_encoder(),
        tokenizer=tokenizer(),
        unet=unet(time_cond_proj_dim=16),
        scheduler=diffusers.LCMScheduler(**MILD),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(place)


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    return 10 * float(np.log10(255**2 / max(float(((first.astype(float) - second) ** 2).mean()), 1e-9)))


@pytest.mark.slow
def test_a_latent_consistency_model(lcm: Path, squares: np.ndarray, by_diffusers: Any) -> None:
    engine = open_engine(cached_engine(recipe_for(str(lcm))), "onnxruntime", threads=1)
    assert scheduler_for(engine.manifest.scheduler) == "lcm"
    sampler = Sampler(engine, SamplerSettings(4, 0.5, 1.0, "lcm"))
    made, _ = sampler.generate(torch.from_numpy(squares[:1]), [5])
    pipeline = diffusers.StableDiffusionImg2ImgPipeline.from_pretrained(lcm)
    pipeline.set_progress_bar_config(disable=True)
    noise = noise_for([5], sampler.noise_shapes)
    alike = [
        psnr(
            made[0].numpy(),
            by_diffusers(pipeline, squares[0], noise, num_inference_steps=4, strength=0.5, guidance_scale=told),
        )
        for told in (8.5, 3.0)
    ]
    assert alike[0] >= 70
    assert alike[1] <= 55


def test_only_a_family_that_tells_it_so_takes_such_a_network(lcm: Path) -> None:
    with pytest.raises(DiffcleanError, match="time_cond_proj_dim 16"):
        load_unet(lcm, "unet", context=16)
    assert load_model(family_named("sd-img2img"), lcm).scheduler["_class_name"] == "LCMScheduler"


def test_a_turbo_model_has_a_recipe_for_few_steps() -> None:
    recipe = recipe_for("stabilityai/sd-turbo")
    assert recipe == load_recipe("sd-turbo")
    assert recipe.defaults["steps"] * recipe.defaults["strength"] >= 1
    assert recipe.defaults["steps"] <= 4
    assert "ommercial" in recipe.license_note
