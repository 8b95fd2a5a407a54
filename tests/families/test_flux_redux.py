"""FLUX.1 Redux against diffusers' own pipelines, and the messages for parts that do not belong together."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image
from small_flux import POOLED, SHIFTING, saved_flux
from small_models import SIDE, WIDTH
from torch import Tensor

from diffclean.engine.manifest import read_engine_manifest
from diffclean.errors import DiffcleanError, UsageError
from diffclean.export.cache import ExportOptions, cached_engine
from diffclean.export.onnx import PARITY_LIMITS, example_inputs, reference_outputs
from diffclean.families.registry import family_named, load_model, recipe_for
from diffclean.families.seeds import noise_for
from diffclean.runtime.choose import open_engine
from diffclean.variation.sampler import Sampler, SamplerSettings

pytestmark = pytest.mark.slow  # an export of this model takes about ten seconds

KINDS: dict[str, dict[str, Any]] = {
    "dev": {"guided": True, **SHIFTING},
    "schnell": {"guided": False, "shift": 1.0},
}
STEPS, SEEDS, ALIKE_DB = 4, [5, 6], 70
UNUSED = dict.fromkeys(
    ("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2", "image_encoder", "feature_extractor")
)
"""What diffusers' pipeline is not given."""


@pytest.fixture(scope="module")
def model_of(once: Callable[..., Path]) -> Callable[[str], Path]:
    return cache(lambda kind: once(f"flux/{kind}", partial(saved_flux, **KINDS[kind])))


@pytest.fixture(scope="module")
def engine_of(model_of: Callable[[str], Path]) -> Callable[[str], Path]:
    return cache(lambda kind: cached_engine(recipe_for(str(model_of(kind)))))


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    return 10 * float(np.log10(255**2 / max(float(((first.astype(float) - second) ** 2).mean()), 1e-9)))


@torch.no_grad()
def tokens_of(place: Path, square: np.ndarray) -> Tensor:
    """What diffusers' prior pipeline of Redux passes on; its own call knows only the widths of the real model."""
    from diffusers.pipelines.flux.modeling_flux import ReduxImageEncoder
    from transformers import SiglipImageProcessor, SiglipVisionModel

    prior = diffusers.FluxPriorReduxPipeline(
        image_encoder=SiglipVisionModel.from_pretrained(place / "image_encoder"),
        feature_extractor=SiglipImageProcessor.from_pretrained(place / "feature_extractor"),
        image_embedder=ReduxImageEncoder.from_pretrained(place / "image_embedder"),
    )
    tokens = prior.image_embedder(prior.encode_image(Image.fromarray(square), "cpu", 1)).image_embeds
    return torch.cat([torch.zeros(1, 512, WIDTH), tokens], dim=1)


def by_diffusers(place: Path, square: np.ndarray, noise: dict[str, Tensor], **arguments: Any) -> np.ndarray:
    """The grey levels that diffusers' `FluxPipeline` makes, with the sampler's noise."""
    pipeline = diffusers.FluxPipeline.from_pretrained(place, **UNUSED)
    pipeline.set_progress_bar_config(disable=True)
    for key in [key for key in arguments if key in pipeline.scheduler.config]:
        pipeline.scheduler = type(pipeline.scheduler).from_config(
            pipeline.scheduler.config, **{key: arguments.pop(key)}
        )
    latents = pipeline._pack_latents(noise["sample"], 1, 4, SIDE // 4, SIDE // 4)
    images = pipeline(
        prompt_embeds=tokens_of(place, square),
        pooled_prompt_embeds=torch.zeros(1, POOLED),
        latents=latents,
        height=SIDE,
        width=SIDE,
        num_inference_steps=STEPS,
        output_type="np",
        **arguments,
    ).images
    return np.asarray((images[0] * 255).round())


@pytest.mark.parametrize("guidance", [1.0, 3.5])
def test_the_pixels_are_those_of_diffusers(model_of: Any, engine_of: Any, squares: np.ndarray, guidance: float) -> None:
    sampler = Sampler(
        open_engine(engine_of("dev"), "onnxruntime", threads=1), SamplerSettings(STEPS, 1.0, guidance, "flow")
    )
    made, finite = sampler.generate(torch.from_numpy(squares), SEEDS)
    assert finite.all()
    assert made.float().std() > 5  # pictures
    for square, seed, variation in zip(squares, SEEDS, made, strict=True):
        noise = noise_for([seed], sampler.noise_shapes)
        theirs = by_diffusers(model_of("dev"), square, noise, guidance_scale=guidance)
        assert psnr(variation.numpy(), theirs) >= ALIKE_DB


@pytest.mark.parametrize(
    "wrong",
    [{"guidance_scale": 2.5}, {"max_shift": 1.5}, {"use_dynamic_shifting": False}],
    ids=lambda wrong: next(iter(wrong)),
)
def test_another_schedule_or_guidance_shows(
    model_of: Any, engine_of: Any, squares: np.ndarray, wrong: dict[str, Any]
) -> None:
    """So the comparison above sees it: this network is untrained, and might have taken no notice."""
    sampler = Sampler(open_engine(engine_of("dev"), "onnxruntime", threads=1), SamplerSettings(STEPS, 1.0, 3.5, "flow"))
    made, _ = sampler.generate(torch.from_numpy(squares[:1]), SEEDS[:1])
    noise = noise_for(SEEDS[:1], sampler.noise_shapes)
    theirs = by_diffusers(model_of("dev"), squares[0], noise, **{"guidance_scale": 3.5, **wrong})
    assert psnr(made[0].numpy(), theirs) <= ALIKE_DB - 15


def test_another_picture_is_another_variation(engine_of: Any, squares: np.ndarray) -> None:
    """So the comparison above sees which picture the transformer was told."""
    sampler = Sampler(open_engine(engine_of("dev"), "onnxruntime", threads=1), SamplerSettings(STEPS, 1.0, 3.5, "flow"))
    first, second = sampler.generate(torch.from_numpy(squares), [5, 5])[0].numpy()
    assert psnr(first, second) <= ALIKE_DB - 15
    alone = sampler.generate(torch.from_numpy(squares[1:]), [5])[0][0].numpy()
    assert np.abs(alone.astype(int) - second).max() <= 1


def test_without_distilled_guidance_the_other_half_is_zeros(model_of: Any, engine_of: Any, squares: np.ndarray) -> None:
    sampler = Sampler(
        open_engine(engine_of("schnell"), "onnxruntime", threads=1), SamplerSettings(STEPS, 1.0, 2.0, "flow")
    )
    made, _ = sampler.generate(torch.from_numpy(squares[:1]), SEEDS[:1])
    noise = noise_for(SEEDS[:1], sampler.noise_shapes)
    theirs = by_diffusers(
        model_of("schnell"),
        squares[0],
        noise,
        true_cfg_scale=2.0,
        negative_prompt_embeds=torch.zeros(1, 512 + 64, WIDTH),
        negative_pooled_prompt_embeds=torch.zeros(1, POOLED),
    )
    assert psnr(made[0].numpy(), theirs) >= ALIKE_DB


def test_from_the_noised_source(
    model_of: Any, engine_of: Any, squares: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampler = Sampler(open_engine(engine_of("dev"), "onnxruntime", threads=1), SamplerSettings(STEPS, 0.5, 3.5, "flow"))
    made, _ = sampler.generate(torch.from_numpy(squares[:1]), SEEDS[:1])
    noise = noise_for(SEEDS[:1], sampler.noise_shapes)
    for place, name in {
        "diffusers.pipelines.flux.pipeline_flux_img2img": "sample",
        "diffusers.models.autoencoders.vae": "vae_encoder",
    }.items():
        monkeypatch.setattr(f"{place}.randn_tensor", lambda *_, name=name, **__: noise[name])
    pipeline = diffusers.FluxImg2ImgPipeline.from_pretrained(model_of("dev"), **UNUSED)
    pipeline.set_progress_bar_config(disable=True)
    images = pipeline(
        prompt_embeds=tokens_of(model_of("dev"), squares[0]),
        pooled_prompt_embeds=torch.zeros(1, POOLED),
        image=Image.fromarray(squares[0]),
        strength=0.5,
        guidance_scale=3.5,
        height=SIDE,
        width=SIDE,
        num_inference_steps=STEPS,
        output_type="np",
    ).images
    assert psnr(made[0].numpy(), np.asarray((images[0] * 255).round())) >= ALIKE_DB


def test_every_runtime_makes_the_same(engine_of: Any, squares: np.ndarray) -> None:
    settings = SamplerSettings(STEPS, 1.0, 3.5, "flow")
    made = [
        Sampler(open_engine(engine_of("dev"), runtime, "fp32", threads=1), settings)
        .generate(torch.from_numpy(squares[:1]), SEEDS[:1])[0]
        .numpy()
        for runtime in ("onnxruntime", "openvino", "torch")
    ]
    assert psnr(made[0], made[1]) >= ALIKE_DB
    assert psnr(made[0], made[2]) >= ALIKE_DB


def test_signatures_are_true_and_graphs_agree(model_of: Any, engine_of: Any) -> None:
    for name, component in load_model(family_named("flux-redux"), model_of("dev")).components.items():
        found = [(tuple(output.shape), str(output.dtype)) for output in reference_outputs(component, 2)]
        assert found == [((2, *port.shape), f"torch.{port.dtype}") for port in component.outputs], name
        assert example_inputs(component.inputs, 2).keys() == {port.name for port in component.inputs}
    for name, entry in read_engine_manifest(engine_of("dev")).components.items():
        assert entry.parity["max_relative"] <= PARITY_LIMITS["fp32"], name


def test_rotary_tables_are_constants_of_the_graph(engine_of: Any) -> None:
    """FLUX computes them in fp64 from positions, which not every runtime takes."""
    import onnx

    graph = onnx.load(engine_of("dev") / "unet" / "model.onnx").graph
    kinds = {node.op_type for node in graph.node}
    assert not {"Sin", "Cos"} <= kinds or sum(node.op_type == "Cos" for node in graph.node) <= 2  # of the timestep
    doubles = [value.name for value in graph.initializer if value.data_type == onnx.TensorProto.DOUBLE]
    assert not doubles


def test_an_engine_in_half_precision(model_of: Any) -> None:
    manifest = read_engine_manifest(cached_engine(recipe_for(str(model_of("dev"))), ExportOptions("fp16")))
    for name, entry in manifest.components.items():
        assert entry.parity["max_relative"] <= PARITY_LIMITS["fp16"], name


def test_every_component_compiles(engine_of: Any, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    from diffclean.engine.tensorrt_targets import Profile
    from diffclean.export.compiled import compile_engine
    from diffclean.export.forms import CompileOptions

    engine = Path(shutil.copytree(engine_of("dev"), tmp_path / "engine"))
    made = compile_engine(engine, CompileOptions(("tensorrt-rtx",), Profile(1, 2, 4), guided=False))
    assert {outcome.form.component for outcome in made} == set(read_engine_manifest(engine).components)


def change(place: Path, part: str, **values: Any) -> None:
    name = "scheduler_config.json" if part == "scheduler" else "config.json"
    path = place / part / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.fixture
def copied(model_of: Any, tmp_path: Path) -> Path:
    return Path(shutil.copytree(model_of("dev"), tmp_path / "model"))


def test_one_half_of_the_model_is_called_so(copied: Path) -> None:
    for part, missing in (("image_embedder", "image_embedder"), ("transformer", "transformer")):
        shutil.rmtree(copied / part)
        with pytest.raises(DiffcleanError, match=f"only one half of FLUX.1 Redux: {missing}/ is missing") as raised:
            load_model(family_named("flux-redux"), copied)
        assert "FLUX.1-Redux-dev" in raised.value.hint


def test_parts_of_different_widths_are_named(copied: Path) -> None:
    from diffusers.pipelines.flux.modeling_flux import ReduxImageEncoder

    shutil.rmtree(copied / "image_embedder")
    ReduxImageEncoder(redux_dim=WIDTH, txt_in_features=2 * WIDTH).save_pretrained(copied / "image_embedder")
    with pytest.raises(DiffcleanError, match=r"the embedder's tokens and the transformer have widths 32 and 16"):
        load_model(family_named("flux-redux"), copied)


def test_a_schedule_of_another_kind_is_refused(copied: Path, engine_of: Any) -> None:
    change(copied, "scheduler", _class_name="DDIMScheduler")
    index = copied / "model_index.json"
    index.write_text(json.dumps({**json.loads(index.read_text()), "scheduler": ["diffusers", "DDIMScheduler"]}))
    with pytest.raises(DiffcleanError, match="DDIMScheduler, which diffclean cannot use") as raised:
        load_model(family_named("flux-redux"), copied)
    assert "FlowMatchEulerDiscreteScheduler" in raised.value.hint
    engine = open_engine(engine_of("dev"), "onnxruntime", threads=1)
    with pytest.raises(UsageError, match="ddim does not fit this model"):
        Sampler(engine, SamplerSettings(STEPS, 1.0, 3.5, "ddim"))
