"""LoRAs and other changes that a recipe makes to its model, held against diffusers' network with the LoRA beside it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from diffclean.errors import DiffcleanError, UsageError
from diffclean.export.cache import ExportOptions, cached_engine, identity_of, source_of
from diffclean.families.adapted import adapted
from diffclean.families.registry import recipe_for
from diffclean.families.seeds import noise_for
from diffclean.runtime.choose import open_engine
from diffclean.variation.sampler import Sampler, SamplerSettings
from diffclean.variation.schedule import scheduler_named

RANK, ALPHA = 3, 1.5
LAYERS = {
    "unet": [
        "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q",
        "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k",
        "mid_block.resnets.0.conv1",
    ],
    "text_encoder": ["text_model.encoder.layers.0.self_attn.q_proj"],
}
RECIPE = """
family = "sd-img2img"
[source]
path = "{model}"
lora = "{lora}"
lora_scale = {scale}
[scheduler]
timestep_spacing = "trailing"
beta_end = 0.002
[defaults]
steps = 4
strength = 0.75
scheduler = "lcm"
guidance = 1
batch = 2
"""

Halves = dict[str, tuple[Tensor, Tensor]]


def layer_of(pipeline: Any, name: str) -> nn.Module:
    part, _, layer = name.partition(".")
    module = getattr(pipeline, part)
    return module.get_submodule(layer if hasattr(module, "text_model") else layer.removeprefix("text_model."))


@pytest.fixture(scope="module")
def pipeline(model_of: Any) -> Any:
    loaded = diffusers.StableDiffusionImg2ImgPipeline.from_pretrained(model_of("sd-img2img"))
    loaded.set_progress_bar_config(disable=True)
    return loaded


@pytest.fixture(scope="module")
def halves(pipeline: Any) -> Halves:
    """Layer -> (A, B), as peft shapes them."""
    generator = torch.Generator().manual_seed(0)
    made = {}
    for name in (f"{part}.{layer}" for part, layers in LAYERS.items() for layer in layers):
        weight = layer_of(pipeline, name).weight
        down = torch.randn(RANK, *weight.shape[1:], generator=generator)
        up = torch.randn(len(weight), RANK, *[1] * (weight.ndim - 2), generator=generator)
        made[name] = (0.7 * down, 0.7 * up)
    return made


def peft_form(halves: Halves) -> dict[str, Tensor]:
    return {
        f"{name}.lora_{half}.weight": tensor
        for name, pair in halves.items()
        for half, tensor in zip("AB", pair, strict=True)
    }


def kohya_form(halves: Halves) -> dict[str, Tensor]:
    made = {}
    for name, (down, up) in halves.items():
        part, _, layer = name.partition(".")
        stem = f"lora_{'unet' if part == 'unet' else 'te'}_{layer.replace('.', '_')}"
        made |= {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up, f"{stem}.alpha": torch.tensor(ALPHA)}
    return made


FORMS: dict[str, tuple[Callable[[Halves], dict[str, Tensor]], float]] = {
    "peft": (peft_form, 1.0),
    "kohya": (kohya_form, ALPHA / RANK),
}
"""How a file names its tensors -> alpha / rank."""


@pytest.fixture
def recipe_with(model_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """`recipe_with(tensors, scale)`: a recipe of the small model with this LoRA."""
    monkeypatch.setenv("DIFFCLEAN_CACHE", str(tmp_path / "cache"))

    def made(tensors: dict[str, Tensor], scale: float = 1.0, name: str = "pytorch_lora_weights.safetensors") -> Path:
        (tmp_path / "lora").mkdir(exist_ok=True)
        save_file(tensors, tmp_path / "lora" / name)
        path = tmp_path / "mine.toml"
        path.write_text(RECIPE.format(model=model_of("sd-img2img"), lora="lora", scale=scale))
        return path

    return made


@pytest.fixture
def hooked(pipeline: Any, halves: Halves) -> Any:
    """`hooked(factor)`: diffusers' pipeline, in which each layer adds its LoRA's own output, and fuses nothing."""
    handles = []

    def with_lora(factor: float) -> Any:
        for name, (down, up) in halves.items():

            def add(module: Any, inputs: Any, output: Tensor, down: Tensor = down, up: Tensor = up) -> Tensor:
                if isinstance(module, nn.Conv2d):
                    inner = functional.conv2d(inputs[0], down, stride=module.stride, padding=module.padding)
                    return output + factor * functional.conv2d(inner, up)
                return output + factor * functional.linear(functional.linear(inputs[0], down), up)

            handles.append(layer_of(pipeline, name).register_forward_hook(add))
        return pipeline

    yield with_lora
    for handle in handles:
        handle.remove()


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    return 10 * float(np.log10(255**2 / max(float(((first.astype(float) - second) ** 2).mean()), 1e-9)))


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_the_pixels_are_those_of_a_network_with_the_lora(
    form: str,
    halves: Halves,
    recipe_with: Any,
    hooked: Any,
    pipeline: Any,
    squares: np.ndarray,
    by_diffusers: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tensors, factor = FORMS[form]
    recipe = recipe_for(str(recipe_with(tensors(halves), scale=0.8)))
    engine = open_engine(cached_engine(recipe), "onnxruntime", threads=1)
    assert engine.manifest.scheduler["beta_end"] == 0.002
    sampler = Sampler(engine, SamplerSettings(4, 0.75, 1.0, "lcm"))
    made, _ = sampler.generate(torch.from_numpy(squares[:1]), [5])
    # The runtime that computes with the model itself reads the changed model too.
    by_torch = Sampler(open_engine(engine.directory, "torch", threads=1), sampler.settings)
    assert psnr(by_torch.generate(torch.from_numpy(squares[:1]), [5])[0].numpy(), made.numpy()) >= 70
    config = {**pipeline.scheduler.config, "timestep_spacing": "trailing", "beta_end": 0.002}
    arguments = {"num_inference_steps": 4, "strength": 0.75, "guidance_scale": 1.0}
    alike = []
    for with_lora in (False, True):
        monkeypatch.setattr(pipeline, "scheduler", scheduler_named("lcm", config))
        one = hooked(0.8 * factor) if with_lora else pipeline
        theirs = by_diffusers(one, squares[0], noise_for([5], sampler.noise_shapes), **arguments)
        alike.append(psnr(made[0].numpy(), theirs))
    assert alike[1] >= 70
    assert alike[0] <= 55


def test_the_model_itself_stays_as_it_is(halves: Halves, recipe_with: Any, model_of: Any) -> None:
    model = model_of("sd-img2img")
    before = {path: path.read_bytes() for path in model.rglob("*") if path.is_file()}
    recipe = recipe_for(str(recipe_with(peft_form(halves))))
    place = adapted(recipe)
    assert {path: path.read_bytes() for path in model.rglob("*") if path.is_file()} == before
    assert adapted(recipe) == place  # once
    name = "unet/diffusion_pytorch_model.safetensors"
    first, second = load_file(model / name), load_file(place / name)
    changed = {key.removesuffix(".weight") for key in first if not torch.equal(first[key], second[key])}
    assert changed == set(LAYERS["unet"])
    scheduler = json.loads((place / "scheduler" / "scheduler_config.json").read_text())
    assert scheduler["timestep_spacing"] == "trailing"


def test_another_lora_or_scale_is_another_engine(halves: Halves, recipe_with: Any) -> None:
    def identity(tensors: dict[str, Tensor], scale: float) -> dict[str, Any]:
        recipe = recipe_for(str(recipe_with(tensors, scale)))
        return identity_of(recipe, ExportOptions(), source_of(recipe))

    first = identity(peft_form(halves), 1.0)
    assert first == identity(peft_form(halves), 1.0)
    assert first["changes"]["lora_scale"] == 1.0
    assert identity(peft_form(halves), 0.5) != first
    assert identity(kohya_form(halves), 1.0)["changes"]["lora"] != first["changes"]["lora"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda name, down, up: {f"{name}.lora_A.weight": down}, "two halves of .* do not fit"),
        (lambda name, down, up: {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up[:-1]}, "does not fit"),
        (
            lambda name, down, up: {"unet.no.such.lora_A.weight": down, "unet.no.such.lora_B.weight": up},
            r"unet has no no\.such",
        ),
        (
            lambda name, down, up: {
                f"{name}.lora_A.weight": down,
                f"{name}.lora_B.weight": up,
                f"{name}.lora_magnitude_vector": up[:, 0].clone(),
            },
            "not a plain LoRA: it holds .*lora_magnitude_vector",
        ),
        (
            lambda name, down, up: {f"{name}.lora_A.weight": down * float("inf"), f"{name}.lora_B.weight": up},
            "not finite|does not fit",
        ),
    ],
)
def test_what_cannot_be_fused_is_said(change: Any, message: str, halves: Halves, recipe_with: Any) -> None:
    name = f"unet.{LAYERS['unet'][0]}"
    down, up = halves[name]
    with pytest.raises(DiffcleanError, match=message):
        adapted(recipe_for(str(recipe_with(change(name, down, up)))))


def test_a_pickled_or_missing_lora_is_refused(halves: Halves, recipe_with: Any, tmp_path: Path) -> None:
    recipe = recipe_for(str(recipe_with(peft_form(halves))))
    (tmp_path / "lora" / "pytorch_lora_weights.safetensors").rename(tmp_path / "lora" / "pytorch_lora_weights.bin")
    with pytest.raises(DiffcleanError, match=r"holds pytorch_lora_weights\.bin; expected: one file of safetensors"):
        adapted(recipe)
    (tmp_path / "lora" / "pytorch_lora_weights.bin").unlink()
    (tmp_path / "lora").rmdir()
    with pytest.raises(DiffcleanError, match="There is no LoRA"):
        cached_engine(recipe)


def test_two_loras_in_one_folder_must_be_told_apart(halves: Halves, recipe_with: Any) -> None:
    recipe_with(peft_form(halves), name="a.safetensors")
    recipe = recipe_for(str(recipe_with(peft_form(halves), name="b.safetensors")))
    with pytest.raises(DiffcleanError, match=r"holds a\.safetensors, b\.safetensors"):
        adapted(recipe)


def test_a_recipe_with_a_wrong_lora_entry_is_no_recipe(halves: Halves, recipe_with: Any) -> None:
    path = recipe_with(peft_form(halves))
    path.write_text(path.read_text().replace('lora = "lora"', "lora = 5"))
    with pytest.raises(UsageError, match=r"may also have a `lora`"):
        recipe_for(str(path))
