"""Models whose parts do not go together, and what is handed over for a model: a message that says what to type."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from diffclean.cli.main import main
from diffclean.errors import DiffcleanError
from diffclean.export.cache import ExportOptions
from diffclean.families.registry import family_named, load_model, recipe_for


@pytest.fixture
def copied(model_of: Any, tmp_path: Path) -> Path:
    return Path(shutil.copytree(model_of("sd-img2img"), tmp_path / "model"))


def change(model: Path, part: str, **values: Any) -> None:
    path = model / part / ("config.json" if part else "model_index.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def load(model: Path, size: int | None = None) -> Any:
    return load_model(family_named("sd-img2img"), model, size)


def test_sizes_in_every_form(copied: Path) -> None:
    change(copied, "unet", sample_size=[8, 8])
    assert load(copied).image_size == 32
    change(copied, "unet", sample_size=None)
    with pytest.raises(DiffcleanError, match=r"(?s)does not say which size it is made for.*`size`"):
        load(copied)
    assert load(copied, 64).image_size == 64
    for wrong in ([8, 16], "8", 10**6, -8):
        change(copied, "unet", sample_size=wrong)
        with pytest.raises(DiffcleanError, match=r"`size` 512"):
            load(copied)


@pytest.mark.parametrize(
    ("part", "values", "message"),
    [
        ("unet", {"num_class_embeds": 7}, "num_class_embeds 7|class_embedding"),
        ("unet", {"layers_per_block": 10**5}, "layers_per_block"),
        ("unet", {"layers_per_block": [10**5, 1]}, "layers_per_block"),
        ("unet", {"block_out_channels": [10**9, 10**9]}, "block_out_channels"),
        ("unet", {"cross_attention_dim": 10**30}, "cross_attention_dim"),
        ("unet", {"norm_num_groups": 0}, "cannot be read"),
        ("unet", {"block_out_channels": "x"}, "cannot be read"),
        ("unet", {"down_block_types": ["\\x1b[31m"]}, "cannot be read"),
        ("text_encoder", {"num_hidden_layers": 10**5}, "num_hidden_layers"),
        ("vae", {"block_out_channels": [8] * 1000}, "1000 entries"),
        ("vae", {"latent_channels": 8}, "cannot be read"),
        ("vae", {"in_channels": 1, "out_channels": 1}, "cannot be read"),
        ("vae", {"latent_channels": None}, "cannot be read|do not fit together"),
        ("unet", {"in_channels": 9}, "cannot be read"),
        ("unet", {"addition_embed_type": "text"}, "not those of a UNet2DConditionModel: add_embedding"),
        ("unet", {"time_cond_proj_dim": 7}, "cannot be read|missing"),
        ("unet", {"_class_name": "UNet2DModel"}, "a UNet2DConditionModel was expected"),
        ("text_encoder", {"hidden_size": 64}, "cannot be read|do not fit together"),
        ("text_encoder", {"vocab_size": 10**5}, "cannot be read|do not fit together"),
        ("text_encoder", {"max_position_embeddings": 0}, "cannot be read|do not fit together"),
    ],
)
def test_configurations_that_do_not_fit_the_weights(
    part: str, values: dict[str, Any], message: str, copied: Path
) -> None:
    change(copied, part, **values)
    with pytest.raises(DiffcleanError, match=message):
        load(copied)


def test_a_vae_of_another_model(copied: Path) -> None:
    from diffusers import AutoencoderKL

    other = AutoencoderKL(block_out_channels=(8, 8, 8), down_block_types=("DownEncoderBlock2D",) * 3,
                          up_block_types=("UpDecoderBlock2D",) * 3, latent_channels=16, norm_num_groups=4)  # fmt: skip
    shutil.rmtree(copied / "vae")
    other.save_pretrained(copied / "vae")
    with pytest.raises(DiffcleanError, match="works on 4 channels, but the VAE makes 16"):
        load(copied)


@pytest.mark.parametrize(
    ("part", "values", "message"),
    [
        ("text_encoder_2", None, "text_encoder_2/config.json is missing"),
        ("tokenizer_2", None, "tokenizer_2/vocab.json is missing"),
        ("text_encoder", {"max_position_embeddings": 4}, "cannot be read|not those of"),
        ("unet", {"addition_time_embed_dim": 16}, "projection_class_embeddings_input_dim 64 \\(expected 112\\)"),
        ("unet", {"addition_time_embed_dim": "wide"}, "cannot be read|do not fit together"),
        ("unet", {"addition_embed_type": None}, "addition_embed_type None \\(expected text_time\\)"),
        ("unet", {"time_cond_proj_dim": 8}, "time_cond_proj_dim|cond_proj"),
        ("", {"requires_aesthetics_score": True}, "is a refiner"),
    ],
)
def test_sdxl_with_wrong_parts(
    part: str, values: dict[str, Any] | None, message: str, model_of: Any, tmp_path: Path
) -> None:
    model = Path(shutil.copytree(model_of("sdxl-img2img"), tmp_path / "model"))
    if values is None:
        shutil.rmtree(model / part)
    else:
        change(model, part, **values)
    with pytest.raises(DiffcleanError, match=message):
        load_model(family_named("sdxl-img2img"), model)


@pytest.mark.parametrize(
    ("part", "values", "message"),
    [
        ("prior_image_encoder", None, "is only the decoder of Kandinsky 2.2: prior_image_encoder/ is missing"),
        ("prior_image_processor", None, "prior_image_processor/preprocessor_config.json is missing"),
        ("movq", None, "movq/config.json is missing"),
        ("movq", {"lookup_from_codebook": True}, "lookup_from_codebook True \\(expected False\\)"),
        ("unet", {"addition_embed_type": "text"}, "cannot be read|not those of|addition_embed_type text"),
        ("unet", {"out_channels": "many"}, "cannot be read|do not fit together"),
    ],
)
def test_kandinsky_with_wrong_parts(
    part: str, values: dict[str, Any] | None, message: str, model_of: Any, tmp_path: Path
) -> None:
    model = Path(shutil.copytree(model_of("kandinsky"), tmp_path / "model"))
    if values is None:
        shutil.rmtree(model / part)
    else:
        change(model, part, **values)
    with pytest.raises(DiffcleanError, match=message):
        load_model(family_named("kandinsky"), model)


def test_a_model_that_is_no_instruct_pix2pix(copied: Path) -> None:
    with pytest.raises(DiffcleanError, match=r"in_channels 4 \(expected 8\)"):
        load_model(family_named("instruct-pix2pix"), copied)


def test_an_older_model_that_calls_itself_sdxl(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    index = copied / "model_index.json"
    index.write_text(index.read_text().replace("StableDiffusionPipeline", "StableDiffusionXLPipeline"))
    assert main(["export", str(copied)]) == 1
    assert "is not a whole model: tokenizer_2/vocab.json is missing" in capsys.readouterr().err


def test_weights_that_are_not_finite_are_named_before_an_export(
    copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = copied / "unet" / "diffusion_pytorch_model.safetensors"
    state = load_file(path)
    state["conv_in.bias"][0] = float("nan")
    save_file(state, path, {"format": "pt"})
    assert main(["export", str(copied)]) == 1
    said = capsys.readouterr().err
    assert "unet is refused: 1 of the 16 numbers of its tensor conv_in.bias are not finite" in said


def test_a_network_that_overflows_is_not_exported(
    make_model: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its weights are finite, and its answers are not: an engine of it would only make failures."""

    def swell(network: Any) -> None:
        for part in network.parameters():
            part.fill_(6e4)

    model = make_model(tmp_path / "model", change=swell)
    assert main(["export", str(model), "-o", str(tmp_path / "out")]) == 1
    assert "gives values that are not finite (clean) for random inputs" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_empty_prompt_is_masked_where_its_encoder_is_told_so(copied: Path) -> None:
    plain = load(copied).components["unet"].module.prompt
    change(copied, "text_encoder", use_attention_mask=True)
    masked = load(copied).components["unet"].module.prompt
    assert not torch.allclose(plain, masked, atol=1e-3)
    from transformers import CLIPTextModel, CLIPTokenizer

    words = CLIPTokenizer.from_pretrained(copied / "tokenizer")(
        "", padding="max_length", max_length=8, truncation=True, return_tensors="pt"
    )
    encoder = CLIPTextModel.from_pretrained(copied / "text_encoder")
    assert torch.allclose(masked, encoder(words.input_ids, attention_mask=words.attention_mask)[0], atol=1e-5)


def test_a_shift_of_latents_is_passed_over_both_ways(copied: Path) -> None:
    """As diffusers' pipelines of these families do."""
    before = load(copied).components
    change(copied, "vae", shift_factor=0.5)
    after = load(copied).components
    latent, pixels = torch.randn(1, 4, 8, 8), torch.randint(0, 256, (1, 32, 32, 3), dtype=torch.uint8)
    for name, inputs in (("vae_decoder", (latent,)), ("vae_encoder", (pixels, torch.zeros(1, 4, 8, 8)))):
        first, second = before[name].module(*inputs), after[name].module(*inputs)
        assert torch.equal(*(each[0] if isinstance(each, tuple) else each for each in (first, second)))


@pytest.mark.slow
def test_a_part_that_overflows_in_half_precision_is_kept_in_fp32(
    copied: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffclean.export.cache import cached_engine

    monkeypatch.setenv("DIFFCLEAN_CACHE", str(tmp_path / "cache"))
    path = copied / "vae" / "diffusion_pytorch_model.safetensors"
    state = load_file(path)
    state["decoder.conv_in.weight"] *= 1e6
    save_file(state, path, {"format": "pt"})
    change(copied, "vae", force_upcast=True)
    place = cached_engine(recipe_for(str(copied)), ExportOptions("fp16"))
    assert "The graph of vae_decoder is kept in fp32" in caplog.text
    assert (place / "vae_decoder" / "model.onnx").is_file()


def test_what_is_no_model_is_called_what_it_is(
    copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    single = tmp_path / "sd15.safetensors"
    save_file({"model.diffusion_model.w": torch.ones(1)}, single)
    lora = tmp_path / "style.safetensors"
    save_file({"unet.down.lora_A.weight": torch.ones(1)}, lora)
    (tmp_path / "adapter").mkdir()
    shutil.copy(lora, tmp_path / "adapter" / "pytorch_lora_weights.safetensors")
    commit = tmp_path / "hub" / "models--owner--name" / "snapshots" / "abc"
    shutil.copytree(copied, commit)
    cases = {
        single: "single file of weights",
        lora: "is a LoRA",
        tmp_path / "adapter": "is a LoRA",
        tmp_path / "hub": "is the cache of a hub",
        tmp_path / "hub" / "models--owner--name": "is the cache of a hub",
        copied / "unet": "is only a part of a model",
    }
    for place, message in cases.items():
        for command in (["export", str(place)], ["variate", str(tmp_path), "--engine", str(place)]):
            assert main(command) in (1, 2), place
            said = capsys.readouterr().err
            assert message in said, place
            assert "Give" in said or "give" in said
            if "cache" in message:
                assert str(commit) in said


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        "[]",
        "null",
        '{"_class_name": 5}',
        '{"_class_name": ["x"]}',
        '{"_class_name": Infinity}',
        '{"_class_name": "\\ud800"}',
        '{"_class_name": "\\u001b[31mred\\u202e"}',
        "{",
    ],
)
def test_a_hostile_index_is_a_message_without_control_characters(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model_index.json").write_text(text)
    assert main(["export", str(tmp_path / "model")]) == 1
    said = capsys.readouterr().err
    assert "model_index.json" in said or "no family" in said
    assert not set(said) & {"\x1b", "\u202e"}
