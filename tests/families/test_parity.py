"""Every family against diffusers' own pipeline: the same picture, the same starting noise, the same pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image
from small_models import MODELS, saved
from torch import Tensor

from diffclean.data.decode import Limits, decode_for
from diffclean.data.fit import Fit, to_square
from diffclean.export.cache import ExportOptions, cached_engine
from diffclean.export.manifest import read_manifest
from diffclean.export.onnx import PARITY_LIMITS
from diffclean.families.base import noise_shapes
from diffclean.families.registry import recipe_for
from diffclean.runtime.choose import open_engine
from diffclean.variation.sampler import Sampler, SamplerSettings
from diffclean.variation.schedule import SCHEDULERS, scheduler_named
from diffclean.variation.seeds import noise_for

SEED = 5
STEPS = 4


@pytest.fixture(scope="module", params=sorted(MODELS))
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(request.param, tmp_path_factory.mktemp("models") / request.param)


@pytest.fixture(scope="module")
def engine_directory(model: Path) -> Path:
    return cached_engine(recipe_for(str(model)))


@pytest.fixture(scope="module")
def square(tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    """A picture that is not square and has an alpha channel, as `variate` reads it."""
    rng = np.random.default_rng(0)
    colours = np.kron(rng.integers(0, 256, (5, 7, 4)), np.ones((9, 9, 1))).astype(np.uint8)
    path = tmp_path_factory.mktemp("picture") / "picture.png"
    Image.fromarray(colours, "RGBA").save(path)
    image, _ = decode_for(path.read_bytes(), 32, Limits())
    return to_square(image, 32, Fit.SQUASH)[0]


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    return 10 * float(np.log10(255**2 / max(float(((first.astype(float) - second) ** 2).mean()), 1e-9)))


def by_diffusers(model: Path, scheduler: str, square: np.ndarray, noise: dict[str, Tensor], guidance: float) -> Any:
    pipeline = diffusers.DiffusionPipeline.from_pretrained(model)
    pipeline.scheduler = scheduler_named(scheduler, pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline(
        Image.fromarray(square),
        num_inference_steps=STEPS,
        guidance_scale=guidance,
        latents=noise["sample"],
        output_type="np",
    ).images[0]


@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("scheduler", sorted(SCHEDULERS))
def test_the_pixels_are_those_of_diffusers(
    engine_directory: Path, model: Path, square: np.ndarray, scheduler: str, guidance: float
) -> None:
    engine = open_engine(engine_directory, "onnxruntime", threads=1)
    noise = noise_for([SEED], noise_shapes(engine.manifest.components))
    pixels = torch.from_numpy(square)[None].contiguous()
    sampler = Sampler(engine, SamplerSettings(STEPS, 1.0, guidance, scheduler))
    made, finite = sampler.generate(pixels, [SEED])
    expected = (by_diffusers(model, scheduler, square, noise, guidance) * 255).round()
    assert finite.all()
    assert made.float().std() > 5  # a picture
    assert psnr(made[0].numpy(), expected) >= 40


def test_openvino_makes_the_same(engine_directory: Path, square: np.ndarray) -> None:
    settings = SamplerSettings(STEPS, 1.0, 2.0, "ddim")
    pixels = torch.from_numpy(square)[None].contiguous()
    made = [
        Sampler(open_engine(engine_directory, runtime, "fp32", threads=1), settings).generate(pixels, [SEED])[0]
        for runtime in ("onnxruntime", "openvino", "torch")
    ]
    assert psnr(made[0].numpy(), made[1].numpy()) >= 40
    assert psnr(made[0].numpy(), made[2].numpy()) >= 40


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_components_in_half_precision(model: Path, precision: str) -> None:
    manifest = read_manifest(cached_engine(recipe_for(str(model)), ExportOptions(precision)))
    assert {
        name: entry.parity["max_relative"] <= PARITY_LIMITS[precision] for name, entry in manifest.components.items()
    }
    assert manifest.precision == precision
    assert manifest.fingerprint != read_manifest(cached_engine(recipe_for(str(model)))).fingerprint


def test_components_in_single_precision(engine_directory: Path) -> None:
    for entry in read_manifest(engine_directory).components.values():
        assert entry.parity["max_relative"] <= 1e-4


def test_starting_from_the_noised_source_stays_nearer_to_it(engine_directory: Path, square: np.ndarray) -> None:
    engine = open_engine(engine_directory, "onnxruntime", threads=1)
    pixels = torch.from_numpy(square)[None].contiguous()
    latent, (decoded, _) = engine.family.encode(engine.call, pixels, zeros(engine)), (None, None)
    decoded, _ = engine.family.decode(engine.call, latent)
    distances = []
    for strength in (0.25, 0.5, 1.0):
        made, _ = Sampler(engine, SamplerSettings(8, strength, 1.0, "ddim")).generate(pixels, [SEED])
        distances.append(float((made.float() - decoded.float()).abs().mean()))
    assert distances == sorted(distances)


def zeros(engine: Any) -> dict[str, Tensor]:
    return {name: torch.zeros(1, *shape) for name, shape in noise_shapes(engine.manifest.components).items()}
