"""Every family against diffusers' own pipeline: the same picture, the same noise, the same pixels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from small_models import ADAPTER, FAMILIES

from diffclean.engine.manifest import read_engine_manifest
from diffclean.export.cache import ExportOptions, cached_engine
from diffclean.export.onnx import PARITY_LIMITS, onnx_from_component, parity_of_onnx, reference_outputs
from diffclean.families.base import noise_shapes
from diffclean.families.registry import family_named, recipe_for
from diffclean.families.seeds import noise_for
from diffclean.runtime.choose import Engine, open_engine
from diffclean.variation.likeness import likeness_for
from diffclean.variation.sampler import Sampler, SamplerSettings
from diffclean.variation.schedule import scheduler_named, usable_schedulers

SEEDS = [5, 6]
STEPS = 4
ALIKE_DB = 70
"""PSNR: one value in 150 is another grey level. Measured were 80 and more."""
MILD = {"beta_start": 0.00085, "beta_end": 0.002, "beta_schedule": "scaled_linear"}
"""A noise schedule whose every step counts.

Under Stable Diffusion's, which ends in noise alone, the first step of these untrained networks decides nearly
everything: pictures made with a wrong schedule came within ten decibels of the line.
"""
WRONG = {
    "noise levels of Stable Diffusion": {"beta_end": 0.012},
    "another shape": {"beta_schedule": "squaredcos_cap_v2"},
    "another parametrisation": {},
}
"""What a scheduler gets instead."""
EDM = {"_class_name": "EDMEulerScheduler", "sigma_max": 5.0, "prediction_type": "v_prediction"}
"""The schedule of a model of the parametrisation of EDM, with less noise than usual."""
PIPELINES = {
    "sd-img2img": "StableDiffusionImg2ImgPipeline",
    "sdxl-img2img": "StableDiffusionXLImg2ImgPipeline",
    "versatile-diffusion": "VersatileDiffusionImageVariationPipeline",
}
"""Families whose models name another pipeline than the one that makes variations."""
STRENGTH = {"sd-img2img": 0.75, "sdxl-img2img": 0.75}
"""Families of which nothing would be left at strength 1."""
THEIRS_TAKES = {"kandinsky": {"ddim", "dpm++", "dpm++-karras"}}
"""Families whose pipeline in diffusers works with some schedulers only: it does not scale the model's input, or gives
`step` an argument that others do not take."""


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def engine(family: str, engine_of: Any) -> Engine:
    return open_engine(engine_of(family), "onnxruntime", threads=1)


@pytest.fixture(scope="module")
def mild(engine: Engine) -> Engine:
    """The engine under the schedule of which every step counts."""
    scheduler = {**engine.manifest.scheduler, **MILD}
    return Engine(engine.directory, replace(engine.manifest, scheduler=scheduler), engine.runtime)


@pytest.fixture(scope="module")
def pipeline(family: str, model_of: Any) -> Any:
    loaded = getattr(diffusers, PIPELINES.get(family, "DiffusionPipeline")).from_pretrained(model_of(family))
    if family.startswith("ip-adapter"):
        loaded.load_ip_adapter(str(model_of(family)), subfolder="ip_adapter", weight_name=ADAPTER)
    loaded.set_progress_bar_config(disable=True)
    return loaded


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    return 10 * float(np.log10(255**2 / max(float(((first.astype(float) - second) ** 2).mean()), 1e-9)))


def arguments_of(family: str, guidance: float, scheduler: str = "ddim") -> dict[str, float]:
    """For diffusers' pipeline, which would set TCD's gamma to 0."""
    arguments = {"num_inference_steps": STEPS, "guidance_scale": guidance}
    arguments |= {"eta": 0.3} if scheduler == "tcd" else {}
    return arguments | ({"strength": STRENGTH[family]} if family in STRENGTH else {})


@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("scheduler", usable_schedulers({}))
def test_the_pixels_are_those_of_diffusers(
    mild: Engine,
    pipeline: Any,
    squares: np.ndarray,
    scheduler: str,
    guidance: float,
    by_diffusers: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    family = mild.family.name
    if scheduler not in THEIRS_TAKES.get(family, {scheduler}):
        pytest.skip("diffusers' pipeline of this family does not work with this scheduler")
    arguments = arguments_of(family, guidance, scheduler)
    settings = SamplerSettings(STEPS, STRENGTH.get(family, 1.0), guidance, scheduler)
    sampler = Sampler(mild, settings)
    made, finite = sampler.generate(torch.from_numpy(squares), SEEDS)
    assert finite.all()
    assert made.float().std() > 5  # pictures
    monkeypatch.setattr(pipeline, "scheduler", scheduler_named(scheduler, {**pipeline.scheduler.config, **MILD}))
    for square, seed, variation in zip(squares, SEEDS, made, strict=True):
        noise = noise_for([seed], sampler.noise_shapes)
        assert psnr(variation.numpy(), by_diffusers(pipeline, square, noise, **arguments)) >= ALIKE_DB


def test_the_quality_gate_compares_in_the_eyes_of_the_model(engine: Engine, squares: np.ndarray) -> None:
    """The features are what the denoiser is told, so pictures that differ in nothing else count as equal."""
    a, b = squares
    likeness = likeness_for(engine, batch=3)
    same, other, turned = likeness.compare([a, a, b], [a, b, a])
    assert same == pytest.approx(1, abs=1e-6)
    assert other == pytest.approx(turned, abs=1e-9)
    assert -1 <= other < same - 1e-5  # these networks are untrained, and some of them see little difference
    assert likeness.compare([a], [b]) == [other], "whatever else is in the batch"
    has_encoder = "image_encoder" in engine.manifest.components
    assert ("image encoder" in likeness.measure) == has_encoder


@pytest.mark.parametrize("scheduler", usable_schedulers(EDM))
def test_a_model_that_was_trained_for_edm(
    mild: Engine,
    pipeline: Any,
    squares: np.ndarray,
    scheduler: str,
    by_diffusers: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if scheduler not in THEIRS_TAKES.get(mild.family.name, {scheduler}):
        pytest.skip("diffusers' pipeline of this family does not work with this scheduler")
    engine = Engine(mild.directory, replace(mild.manifest, scheduler=EDM), mild.runtime)
    strength = STRENGTH.get(mild.family.name, 1.0)
    made, _ = Sampler(engine, SamplerSettings(STEPS, strength, 1.0, scheduler)).generate(
        torch.from_numpy(squares[:1]), SEEDS[:1]
    )
    noise = noise_for(SEEDS[:1], noise_shapes(engine.manifest.components))
    alike = []
    for config in (EDM, {**EDM, "sigma_max": 7.0}):
        monkeypatch.setattr(pipeline, "scheduler", scheduler_named(scheduler, config))
        theirs = by_diffusers(pipeline, squares[0], noise, **arguments_of(mild.family.name, 1.0))
        alike.append(psnr(made[0].numpy(), theirs))
    assert alike[0] >= ALIKE_DB
    assert alike[1] <= ALIKE_DB - 15


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_schedule_is_far_from_the_line(
    mild: Engine, pipeline: Any, squares: np.ndarray, wrong: str, by_diffusers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So the comparison above sees it: these networks are untrained, and might have taken no notice."""
    config = {**pipeline.scheduler.config, **MILD, **WRONG[wrong]}
    if not WRONG[wrong]:
        config["prediction_type"] = "epsilon" if config["prediction_type"] == "v_prediction" else "v_prediction"
    settings = SamplerSettings(STEPS, STRENGTH.get(mild.family.name, 1.0), 1.0, "ddim")
    made, _ = Sampler(mild, settings).generate(torch.from_numpy(squares[:1]), SEEDS[:1])
    monkeypatch.setattr(pipeline, "scheduler", scheduler_named("ddim", config))
    noise = noise_for(SEEDS[:1], noise_shapes(mild.manifest.components))
    theirs = by_diffusers(pipeline, squares[0], noise, **arguments_of(mild.family.name, 1.0))
    assert psnr(made[0].numpy(), theirs) <= ALIKE_DB - 15


def test_every_runtime_makes_the_same(family: str, engine_of: Any, squares: np.ndarray) -> None:
    settings = SamplerSettings(STEPS, STRENGTH.get(family, 1.0), 2.0, "ddim")
    made = [
        Sampler(open_engine(engine_of(family), runtime, "fp32", threads=1), settings).generate(
            torch.from_numpy(squares), SEEDS
        )[0]
        for runtime in ("onnxruntime", "openvino", "torch")
    ]
    assert psnr(made[0].numpy(), made[1].numpy()) >= ALIKE_DB
    assert psnr(made[0].numpy(), made[2].numpy()) >= ALIKE_DB


def test_components_in_single_precision(engine: Engine) -> None:
    for entry in engine.manifest.components.values():
        assert entry.parity["max_relative"] <= 1e-4


@pytest.mark.slow
def test_what_a_family_is_told_works_in_half_precision(family: str, model_of: Any, tmp_path: Path) -> None:
    """The ends of the VAE are the same modules in every family; they are below."""
    components = family_named(family).load(model_of(family)).components
    for name in sorted({"image_encoder", "unet"} & set(components)):
        expected = reference_outputs(components[name])
        onnx_from_component(components[name], tmp_path / name / "model.onnx", "fp16")
        found = parity_of_onnx(components[name], tmp_path / name / "model.onnx", "fp16", expected)
        assert found["max_relative"] <= 2e-2


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_an_engine_in_half_precision(model_of: Any, engine_of: Any, precision: str) -> None:
    recipe = recipe_for(str(model_of("sd-image-variations")))
    manifest = read_engine_manifest(cached_engine(recipe, ExportOptions(precision)))
    for name, entry in manifest.components.items():
        assert entry.parity["max_relative"] <= PARITY_LIMITS[precision], name
    assert manifest.precision == precision
    assert manifest.fingerprint != read_engine_manifest(engine_of("sd-image-variations")).fingerprint


def test_starting_from_the_noised_source_stays_nearer_to_it(engine: Engine, squares: np.ndarray) -> None:
    pixels = torch.from_numpy(squares)
    zeros = {name: torch.zeros(2, *shape) for name, shape in noise_shapes(engine.manifest.components).items()}
    decoded, _ = engine.family.decode(engine.call, engine.family.encode(engine.call, pixels, zeros))
    distances = []
    for strength in (0.25, 0.5, 0.9):
        made, _ = Sampler(engine, SamplerSettings(8, strength, 1.0, "ddim")).generate(pixels, SEEDS)
        distances.append(float((made.float() - decoded.float()).abs().mean()))
    assert distances == sorted(distances)
