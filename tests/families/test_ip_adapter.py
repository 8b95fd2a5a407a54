"""IP-Adapter: the tokens of both kinds, held against diffusers', and adapters that do not fit."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from small_models import ADAPTER, WIDTH, adapter_state, filled, sdxl_unet, unet
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from diffclean.cli.main import main
from diffclean.errors import DiffcleanError
from diffclean.families.base import noise_shapes
from diffclean.families.registry import family_named, family_of, load_model
from diffclean.families.seeds import noise_for

FAMILIES = ("ip-adapter", "ip-adapter-sdxl")
KINDS = {"plain": False, "plus": True}


@pytest.fixture
def copied(model_of: Any, tmp_path: Path) -> Path:
    return Path(shutil.copytree(model_of("ip-adapter"), tmp_path / "model"))


def adapter_of(model: Path) -> Path:
    return model / "ip_adapter" / ADAPTER


def with_kind(model: Path, family: str, kind: str) -> Path:
    network = unet() if family == "ip-adapter" else sdxl_unet()
    save_file(adapter_state(network, plus=KINDS[kind]), adapter_of(model))
    return model


def by_diffusers(model: Path) -> Any:
    pipeline = diffusers.DiffusionPipeline.from_pretrained(model)
    pipeline.load_ip_adapter(str(model), subfolder="ip_adapter", weight_name=ADAPTER)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_tokens_are_those_of_diffusers(
    family: str, kind: str, model_of: Any, tmp_path: Path, squares: np.ndarray
) -> None:
    """Also those of the unconditional half, which are not zeros."""
    model = with_kind(Path(shutil.copytree(model_of(family), tmp_path / "model")), family, kind)
    pipeline = by_diffusers(model)
    with torch.no_grad():
        embeds = pipeline.prepare_ip_adapter_image_embeds(Image.fromarray(squares[0]), None, "cpu", 1, True)
        nothing, tokens = pipeline.unet.encoder_hid_proj(embeds)[0].flatten(1, 2)
    components = family_named(family).load(model).components
    with torch.no_grad():
        found = components["image_encoder"].module(torch.from_numpy(squares[:1]))
    # A grey level may be rounded otherwise in shrinking the picture.
    torch.testing.assert_close(found[0], tokens, atol=5e-3, rtol=5e-3)
    torch.testing.assert_close(components["unet"].module.nothing[0], nothing, atol=1e-4, rtol=1e-4)
    assert (tokens - nothing).abs().max() > 0.05
    assert len(tokens) == {"plain": 4, "plus": 5}[kind]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_prediction_is_that_of_diffusers(family: str, kind: str, model_of: Any, tmp_path: Path) -> None:
    """With the same tokens, which leaves nothing to rounding."""
    model = with_kind(Path(shutil.copytree(model_of(family), tmp_path / "model")), family, kind)
    pipeline = by_diffusers(model)
    ours = family_named(family).load(model)
    sample = noise_for([4], noise_shapes(ours.components))["sample"]
    embeds = torch.randn(1, 1, WIDTH) if kind == "plain" else torch.randn(1, 1, 5, WIDTH)
    step = torch.tensor([400.0])
    with torch.no_grad():
        prompt, _, *pooled = (
            pipeline.encode_prompt("", "cpu", 1, False)
            if family == "ip-adapter"
            else (pipeline.encode_prompt("", device="cpu"))
        )
        added: dict[str, Any] = {"image_embeds": [embeds]}
        if pooled:
            added |= {"text_embeds": pooled[0], "time_ids": torch.tensor([[32.0, 32.0, 0.0, 0.0, 32.0, 32.0]])}
        expected = pipeline.unet(sample, step, prompt, added_cond_kwargs=added).sample
        tokens = pipeline.unet.encoder_hid_proj([embeds])[0][:, 0]
        found = ours.components["unet"].module(sample, step, tokens, torch.ones(1))
        other = ours.components["unet"].module(sample, step, tokens, torch.zeros(1))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert (found - other).abs().max() > 1e-3


def test_a_folder_with_an_adapter_is_another_family(copied: Path) -> None:
    assert family_of(copied) == "ip-adapter"
    shutil.rmtree(copied / "ip_adapter")
    assert family_of(copied) == "sd-img2img"


def test_without_an_image_processor_it_is_clips(copied: Path) -> None:
    """As in diffusers: SDXL has none."""
    before = load_model(family_named("ip-adapter"), copied).components["image_encoder"].module.pixels
    shutil.rmtree(copied / "feature_extractor")
    after = load_model(family_named("ip-adapter"), copied).components["image_encoder"].module.pixels
    for name in ("resample", "mean", "std"):
        assert torch.equal(getattr(before, name), getattr(after, name))


def spoil(state: dict[str, torch.Tensor], case: str) -> dict[str, torch.Tensor]:
    if case == "no adapter":
        return {"down.weight": torch.ones(2)}
    if case == "for faces":
        return {name.replace("proj.weight", "proj.0.weight"): tensor for name, tensor in state.items()}
    if case == "not finite":
        return {**state, "image_proj.norm.bias": state["image_proj.norm.bias"] / 0}
    if case == "too few":
        return {name: tensor for name, tensor in state.items() if ".3.to_k" not in name}
    if case == "cut":
        return {name: tensor for name, tensor in state.items() if name != "image_proj.norm.bias"}
    return adapter_state(sdxl_unet())


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("no adapter", "is not an IP-Adapter: it has down.weight"),
        ("for faces", "neither a plain IP-Adapter nor IP-Adapter plus"),
        ("not finite", "are not finite"),
        ("too few", "was made for another U-Net: it has 7 matrices for tokens of width 16"),
        ("cut", "cannot be read"),
        ("of SDXL", "it has 14 matrices for tokens of width 32, and the U-Net needs 8 matrices for tokens of width 16"),
    ],
)
def test_an_adapter_that_does_not_fit(case: str, message: str, copied: Path) -> None:
    save_file(spoil(load_file(adapter_of(copied)), case), adapter_of(copied))
    with pytest.raises(DiffcleanError, match=message):
        load_model(family_named("ip-adapter"), copied)


def test_an_image_encoder_of_another_adapter(copied: Path) -> None:
    config = CLIPVisionConfig(
        hidden_size=24, intermediate_size=32, projection_dim=24, num_hidden_layers=2, num_attention_heads=2,
        image_size=14, patch_size=7,
    )  # fmt: skip
    filled(CLIPVisionModelWithProjection(config), 3).save_pretrained(copied / "image_encoder")
    with pytest.raises(DiffcleanError, match=r"takes an embedding of width 16(.|\n)*makes 24(.|\n)*ViT-bigG"):
        load_model(family_named("ip-adapter"), copied)


@pytest.mark.parametrize(
    ("missing", "message"),
    [("image_encoder", "image_encoder/config.json is missing"), (f"ip_adapter/{ADAPTER}", "There is no adapter in")],
)
def test_a_missing_part_is_a_message(
    missing: str, message: str, copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = copied / missing
    shutil.rmtree(place) if place.is_dir() else place.unlink()
    assert main(["export", str(copied)]) == 1
    assert message in capsys.readouterr().err


def test_an_adapter_alone_is_called_so(copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "alone"
    folder.mkdir()
    shutil.copy(adapter_of(copied), folder)
    for place in (folder, folder / ADAPTER):
        assert main(["export", str(place)]) == 1
        said = capsys.readouterr().err
        assert "is an IP-Adapter, not a whole model" in said
        assert "--engine ip-adapter" in said


def test_an_adapter_that_is_damaged(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    adapter_of(copied).write_bytes(adapter_of(copied).read_bytes()[:500])
    assert main(["export", str(copied)]) == 1
    assert "damaged" in capsys.readouterr().err
