"""What each family tells its denoiser, held against what diffusers' pipelines tell theirs."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path
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


def test_sdxl_is_told_what_diffusers_tells(model_of: Any) -> None:
    """Both halves of guidance: the empty prompt of both encoders, and zeros; and the six numbers about the size."""
    pipeline = pipeline_of("StableDiffusionXLImg2ImgPipeline", model_of, "sdxl-img2img")
    unet = loaded("sdxl-img2img", model_of).components["unet"].module
    with torch.no_grad():
        prompt, nothing, pooled, none_pooled = pipeline.encode_prompt("", device="cpu")
    torch.testing.assert_close(unet.prompt, torch.cat([nothing, prompt]))
    torch.testing.assert_close(unet.pooled, torch.cat([none_pooled, pooled]))
    square, corner = (unet_side(pipeline),) * 2, (0, 0)
    theirs, _ = pipeline._get_add_time_ids(
        square, corner, square, 6.0, 2.5, square, corner, square, torch.float32, pooled.shape[-1]
    )
    assert unet.time_ids.tolist() == theirs[0].tolist()
    assert prompt.abs().max() > 0.1


def unet_side(pipeline: Any) -> int:
    """In pixels."""
    return int(pipeline.unet.config.sample_size * pipeline.vae_scale_factor)


def test_sdxl_chooses_a_row_at_a_time(model_of: Any) -> None:
    unet = loaded("sdxl-img2img", model_of).components["unet"].module
    sample, times = torch.randn(1, 4, 8, 8).expand(3, -1, -1, -1), torch.full((3,), 500.0)
    with torch.no_grad():
        mixed = unet(sample, times, torch.tensor([1.0, 0.0, 1.0]))
    torch.testing.assert_close(mixed[0], mixed[2])
    assert (mixed[0] - mixed[1]).abs().max() > 0.01


@pytest.mark.parametrize("zeros", [True, False])
def test_sdxl_withholds_the_prompt_as_the_model_says(model_of: Any, tmp_path: Path, zeros: bool) -> None:
    """Without `force_zeros_for_empty_prompt`, the unconditional half is the empty prompt too."""
    model = Path(shutil.copytree(model_of("sdxl-img2img"), tmp_path / "model"))
    index = json.loads((model / "model_index.json").read_text())
    (model / "model_index.json").write_text(json.dumps({**index, "force_zeros_for_empty_prompt": zeros}))
    withheld, prompt = family_named("sdxl-img2img").load(model).components["unet"].module.prompt
    assert torch.equal(withheld, torch.zeros_like(prompt) if zeros else prompt)


def test_sdxl_follows_the_statistics_of_its_vae(model_of: Any, tmp_path: Path, squares: np.ndarray) -> None:
    """Its pipelines alone use latents_mean and latents_std, in both directions."""
    model = Path(shutil.copytree(model_of("sdxl-img2img"), tmp_path / "model"))
    config = json.loads((model / "vae/config.json").read_text())
    statistics = {"latents_mean": [0.3, -0.2, 0.1, 0.5], "latents_std": [0.7, 1.3, 0.9, 1.1]}
    (model / "vae/config.json").write_text(json.dumps({**config, **statistics}))
    components = family_named("sdxl-img2img").load(model).components
    pipeline = diffusers.StableDiffusionXLImg2ImgPipeline.from_pretrained(model)
    image = pipeline.image_processor.preprocess(Image.fromarray(squares[0]))
    mean, deviation = (torch.tensor(values)[None, :, None, None] for values in statistics.values())
    with torch.no_grad():
        expected = (
            (pipeline.vae.encode(image).latent_dist.mode() - mean) * pipeline.vae.config.scaling_factor / deviation
        )
        latent = components["vae_encoder"].module(torch.from_numpy(squares[:1]), torch.zeros_like(expected))
        pixels, _ = components["vae_decoder"].module(latent)
        theirs = pipeline.vae.decode(pipeline.vae.encode(image).latent_dist.mode()).sample
    torch.testing.assert_close(latent, expected)
    assert (pixels[0].permute(2, 0, 1) - (theirs[0].clamp(-1, 1) * 127.5 + 127.5)).abs().max() <= 1


def test_kandinsky_sees_what_diffusers_sees(model_of: Any, squares: np.ndarray) -> None:
    """Both halves of guidance, as the prior of diffusers makes them of a picture alone."""
    prior = pipeline_of("KandinskyV22CombinedPipeline", model_of, "kandinsky").prior_pipe
    prior.set_progress_bar_config(disable=True)
    model = loaded("kandinsky", model_of)
    with torch.no_grad():
        theirs = prior.interpolate([Image.fromarray(squares[0])], [1.0], num_inference_steps=2)
    condition = told(model, torch.from_numpy(squares[:1]), {})
    torch.testing.assert_close(condition["image_embeds"], theirs.image_embeds, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(model.components["unet"].module.nothing, theirs.negative_image_embeds)
    assert (theirs.image_embeds - theirs.negative_image_embeds).abs().max() > 0.01


@pytest.mark.slow
def test_kandinsky_from_the_noised_source(
    model_of: Any, engine_of: Any, squares: np.ndarray, by_diffusers: Any
) -> None:
    """Below strength 1, where it is diffusers' image-to-image pipeline."""
    engine = open_engine(engine_of("kandinsky"), "onnxruntime", threads=1)
    made, _ = Sampler(engine, SamplerSettings(4, 0.5, 2.0, "ddim")).generate(torch.from_numpy(squares[:1]), [9])
    both = pipeline_of("KandinskyV22CombinedPipeline", model_of, "kandinsky")
    prior = both.prior_pipe
    with torch.no_grad():
        image = prior.image_processor(images=Image.fromarray(squares[0]), return_tensors="pt").pixel_values
        embeds = prior.image_encoder(image).image_embeds
    pipeline = diffusers.KandinskyV22Img2ImgPipeline(unet=both.unet, scheduler=both.scheduler, movq=both.movq)
    pipeline.scheduler = scheduler_named("ddim", engine.manifest.scheduler)
    expected = by_diffusers(
        pipeline,
        squares[0],
        noise_for([9], noise_shapes(engine.manifest.components)),
        image_embeds=embeds,
        negative_image_embeds=prior.get_zero_embed(),
        height=engine.manifest.image_size,
        width=engine.manifest.image_size,
        num_inference_steps=4,
        strength=0.5,
        guidance_scale=2.0,
    )
    error = float(((made[0].double().numpy() - expected) ** 2).mean())
    assert error <= 255**2 / 10**4  # a PSNR of 40 dB


def test_instruct_pix2pix_is_given_the_latent_as_diffusers_gives_it(model_of: Any, squares: np.ndarray) -> None:
    """The mean of the posterior, and not scaled; nothing is hidden."""
    pipeline = pipeline_of("StableDiffusionInstructPix2PixPipeline", model_of, "instruct-pix2pix")
    model = loaded("instruct-pix2pix", model_of)
    image = pipeline.image_processor.preprocess(Image.fromarray(squares[0]))
    noise = noise_for([3], noise_shapes(model.components))
    with torch.no_grad():
        theirs = pipeline.prepare_image_latents(image, 1, 1, torch.float32, "cpu", False)
        prompt = pipeline._encode_prompt("", "cpu", 1, False)
    unet = model.components["unet"].module
    source = told(model, torch.from_numpy(squares[:1]), noise)["source"]
    torch.testing.assert_close(source / unet.scale, theirs, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(unet.prompt, prompt)


@pytest.mark.slow
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


@pytest.mark.slow
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
