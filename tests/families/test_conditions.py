"""What each family tells its denoiser, held against what diffusers' pipelines tell theirs."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image
from small_models import MODELS
from torch import Tensor

from diffclean.errors import UsageError
from diffclean.families.base import Model, noise_shapes
from diffclean.families.registry import family_named
from diffclean.families.seeds import noise_for
from diffclean.runtime.choose import Engine, open_engine
from diffclean.variation.sampler import Sampler, SamplerSettings
from diffclean.variation.schedule import scheduler_named


def loaded(family: str, model_of: Any) -> Model:
    return family_named(family).load(model_of(family))


def told(model: Model, pixels: Tensor, noise: dict[str, Tensor]) -> dict[str, Tensor]:
    """A family's condition, by its torch modules."""
    family = family_named(model.family)

    def call(name: str, inputs: dict[str, Tensor]) -> tuple[Tensor, ...]:
        component = model.components[name]
        with torch.no_grad():
            outputs = component.module(*(inputs[port.name] for port in component.inputs))
        return outputs if isinstance(outputs, tuple) else (outputs,)

    return family.condition(call, pixels, noise, family.look(0.5))


def pipeline_of(kind: str, model_of: Any, family: str) -> Any:
    return getattr(diffusers, kind).from_pretrained(model_of(family))


@pytest.mark.parametrize("family", sorted(MODELS))
def test_signatures_are_true(family: str, model_of: Any) -> None:
    """What a component declares is what its module takes and gives."""
    from diffclean.export.onnx import example_inputs, reference_outputs

    for name, component in loaded(family, model_of).components.items():
        found = [(tuple(output.shape), str(output.dtype)) for output in reference_outputs(component, 2)]
        assert found == [((2, *port.shape), f"torch.{port.dtype}") for port in component.outputs], name
        assert example_inputs(component.inputs, 2).keys() == {port.name for port in component.inputs}


@pytest.mark.parametrize("family", sorted(MODELS))
def test_withheld_is_the_same_whatever_the_picture(family: str, model_of: Any, squares: np.ndarray) -> None:
    model = loaded(family, model_of)
    noise = noise_for([1, 2], noise_shapes(model.components))
    condition = told(model, torch.from_numpy(squares), noise)
    for value in family_named(family).withhold(condition).values():
        assert torch.equal(value[0], value[1])
    assert all(not torch.equal(value[0], value[1]) for name, value in condition.items() if name != "told")


def test_versatile_diffusion_sees_what_diffusers_sees(model_of: Any, squares: np.ndarray) -> None:
    """Both halves of guidance: the second is a picture that diffusers scales twice, and so is nearly black."""
    pipeline = pipeline_of("VersatileDiffusionImageVariationPipeline", model_of, "versatile-diffusion")
    model = loaded("versatile-diffusion", model_of)
    with torch.no_grad():
        nothing, tokens = pipeline._encode_prompt(Image.fromarray(squares[0]), "cpu", 1, True, None).chunk(2)
    condition = told(model, torch.from_numpy(squares[:1]), {})
    # A grey level may be rounded otherwise in shrinking the picture; in a picture of one grey none can.
    torch.testing.assert_close(condition["tokens"], tokens, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(model.components["unet"].module.no_picture, nothing, atol=1e-5, rtol=1e-4)
    assert (nothing - tokens).abs().max() > 0.1


def test_versatile_diffusion_chooses_a_row_at_a_time(model_of: Any) -> None:
    unet = loaded("versatile-diffusion", model_of).components["unet"].module
    sample, times = torch.randn(3, 4, 8, 8), torch.full((3,), 500.0)
    tokens = torch.randn(3, *unet.no_picture.shape[1:])
    with torch.no_grad():
        mixed = unet(sample, times, tokens, torch.tensor([1.0, 0.0, 1.0]))
        same = unet(sample, times, tokens * 7, torch.tensor([0.0, 0.0, 0.0]))
    torch.testing.assert_close(mixed[1], same[1])
    assert not torch.allclose(mixed[0], same[0])


def test_stable_unclip_sees_what_diffusers_sees(model_of: Any, squares: np.ndarray) -> None:
    pipeline = pipeline_of("StableUnCLIPImg2ImgPipeline", model_of, "stable-unclip")
    model = loaded("stable-unclip", model_of)
    noise = noise_for([3], noise_shapes(model.components))
    image = pipeline.feature_extractor(images=Image.fromarray(squares[0]), return_tensors="pt").pixel_values
    with torch.no_grad():
        embedding = pipeline.noise_image_embeddings(
            pipeline.image_encoder(image).image_embeds, torch.tensor([0]), noise=noise["image_encoder"]
        )
        nothing = pipeline._encode_image(Image.fromarray(squares[0]), "cpu", 1, 1, True, torch.tensor([0]), None, None)
        prompt, _ = pipeline.encode_prompt("", "cpu", 1, False)
    condition = told(model, torch.from_numpy(squares[:1]), noise)
    torch.testing.assert_close(condition["image_embeds"], embedding, atol=1e-3, rtol=1e-3)
    withheld = family_named("stable-unclip").withhold(condition)["image_embeds"]
    torch.testing.assert_close(withheld, nothing[:1])
    torch.testing.assert_close(model.components["unet"].module.prompt, prompt)


def test_the_noise_on_an_embedding_is_the_images_own(model_of: Any, squares: np.ndarray) -> None:
    model = loaded("stable-unclip", model_of)
    same = torch.from_numpy(squares[:1]).expand(2, -1, -1, -1)
    embedding = told(model, same, noise_for([1, 2], noise_shapes(model.components)))["image_embeds"]
    assert not torch.equal(embedding[0], embedding[1])
    assert 0 < (embedding[0] - embedding[1]).abs().max() < 0.3  # the lowest level: a little


def test_img2img_is_told_the_empty_prompt(model_of: Any) -> None:
    pipeline = pipeline_of("StableDiffusionPipeline", model_of, "sd-img2img")
    with torch.no_grad():
        prompt, _ = pipeline.encode_prompt("", "cpu", 1, False)
    torch.testing.assert_close(loaded("sd-img2img", model_of).components["unet"].module.prompt, prompt)


def test_guidance_without_a_condition_is_left_out_and_said(
    engine_of: Any, squares: np.ndarray, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would double the work and change nothing."""
    engine = open_engine(engine_of("sd-img2img"), "onnxruntime", threads=1)
    run, batches = engine.runtime.run, []

    def counted(name: str, inputs: Any) -> Any:
        batches.append((name, len(inputs["timestep"]) if name == "unet" else 0))
        return run(name, inputs)

    monkeypatch.setattr(engine.runtime, "run", counted)
    pixels = torch.from_numpy(squares)
    plain, guided = (
        Sampler(engine, SamplerSettings(4, 0.5, guidance, "ddim")).generate(pixels, [1, 2])[0] for guidance in (1, 7.5)
    )
    assert torch.equal(plain, guided)
    assert {batch for name, batch in batches if name == "unet"} == {2}
    said = [record.levelno for record in caplog.records if "Guidance is not used" in record.message]
    assert said == [logging.WARNING]


def test_img2img_of_nothing_is_refused(engine_of: Any) -> None:
    """At strength 1 the pictures would have nothing to do with the sources, and a data set be lost."""
    engine = open_engine(engine_of("sd-img2img"), "onnxruntime", threads=1)
    with pytest.raises(UsageError, match=r"`strength` 1 would leave nothing(.|\n)*`strength` 0.5"):
        Sampler(engine, SamplerSettings(4, 1.0, 1.0, "ddim"))


@pytest.mark.parametrize(
    "schedule",
    [
        {"prediction_type": "v_prediction"},
        {"timestep_spacing": "trailing", "steps_offset": 1},  # Turbo
        {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"},
    ],
    ids=["velocity", "trailing", "zero terminal SNR"],
)
@pytest.mark.parametrize("name", ["ddim", "dpm++", "euler"])
def test_a_checkpoints_own_schedule_is_followed(
    model_of: Any,
    engine_of: Any,
    squares: np.ndarray,
    schedule: dict[str, Any],
    name: str,
    by_diffusers: Any,
) -> None:
    """Stable Diffusion 2's velocity, Turbo's spacing: they are the scheduler's, the graphs are the same."""
    opened = open_engine(engine_of("sd-img2img"), "onnxruntime", threads=1)
    manifest = replace(opened.manifest, scheduler=dict(opened.manifest.scheduler) | schedule)
    engine = Engine(opened.directory, manifest, opened.runtime)
    made, _ = Sampler(engine, SamplerSettings(4, 0.75, 1.0, name)).generate(torch.from_numpy(squares[:1]), [9])
    pipeline = pipeline_of("StableDiffusionImg2ImgPipeline", model_of, "sd-img2img")
    pipeline.scheduler = scheduler_named(name, manifest.scheduler)
    noise = noise_for([9], noise_shapes(manifest.components))
    expected = by_diffusers(pipeline, squares[0], noise, num_inference_steps=4, strength=0.75, guidance_scale=1.0)
    error = float(((made[0].double().numpy() - expected) ** 2).mean())
    assert error <= 255**2 / 10**4  # a PSNR of 40 dB
