"""Weights in all the forms that models come with, whole and damaged; what is refused, and what is said."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file
from small_models import scheduler, unet

from diffclean.errors import DiffcleanError
from diffclean.families.parts import load_part
from diffclean.families.registry import family_named, recipe_for
from diffclean.families.sd_img2img import SdImg2Img
from diffclean.families.weights import Weights, weights_among, with_safetensors

STEM = "diffusion_pytorch_model"
PLAIN = f"{STEM}.safetensors"
SHARDS = tuple(f"{STEM}-0000{number}-of-00002.safetensors" for number in (1, 2))


@pytest.fixture
def model(model_of: Any, tmp_path: Path) -> Path:
    return Path(shutil.copytree(model_of("sd-img2img"), tmp_path / "model"))


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DIFFCLEAN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def pickled(model: Path, part: str = "unet", name: str = f"{STEM}.bin", **options: Any) -> Path:
    """The part's weights as a pickle alone."""
    (safe,) = (model / part).glob("*.safetensors")
    tensors = load_file(safe)
    safe.unlink()
    torch.save(tensors, model / part / name, **options)
    return model / part / name


def same(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    pairs = zip(first.state_dict().items(), second.state_dict().items(), strict=True)
    return all(name == other and torch.equal(value, copy) for (name, value), (other, copy) in pairs)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([], None),
        (["config.json"], None),
        ([f"{STEM}.non_ema.safetensors"], None),
        ([PLAIN, f"{STEM}.bin", f"{STEM}.fp16.safetensors"], Weights((PLAIN,), None, False)),
        ([f"{STEM}.fp16.safetensors", f"{STEM}.bin"], Weights((f"{STEM}.bin",), None, True)),
        ([f"{STEM}.fp16.safetensors", f"{STEM}.fp16.bin"], Weights((f"{STEM}.fp16.safetensors",), "fp16", False)),
        (["model.safetensors", "pytorch_model.bin"], Weights(("model.safetensors",), None, False)),
        (["pytorch_model.fp16.bin"], Weights(("pytorch_model.fp16.bin",), "fp16", True)),
        ([*SHARDS, f"{PLAIN}.index.json"], Weights((f"{PLAIN}.index.json", *SHARDS), None, False)),
        ([*SHARDS], None),
        (
            ["model.fp16-00001-of-00001.safetensors", "model.safetensors.index.fp16.json"],
            Weights(("model.safetensors.index.fp16.json", "model.fp16-00001-of-00001.safetensors"), "fp16", False),
        ),
    ],
)
def test_the_plain_weights_come_first_and_safetensors_before_a_pickle(
    names: list[str], expected: Weights | None
) -> None:
    assert weights_among(names) == expected


def test_a_model_in_safetensors_is_used_where_it_is(model: Path, own_cache: Path) -> None:
    assert with_safetensors(model, SdImg2Img.parts) == model
    assert not own_cache.exists()


@pytest.mark.parametrize("old", [False, True], ids=["archive", "of before torch 1.6"])
def test_a_pickle_of_tensors_is_kept_as_safetensors(model: Path, model_of: Any, own_cache: Path, old: bool) -> None:
    pickled(model, _use_new_zipfile_serialization=not old)
    pickled(model, "text_encoder", "pytorch_model.bin", _use_new_zipfile_serialization=not old)
    before = {path: path.read_bytes() for path in model.rglob("*") if path.is_file()}
    kept = with_safetensors(model, SdImg2Img.parts)
    assert own_cache in kept.parents
    assert not list(kept.rglob("*.bin"))
    ours, original = (SdImg2Img().load(place) for place in (kept, model_of("sd-img2img")))
    for name, component in ours.components.items():
        assert same(component.module, original.components[name].module)  # the prompt in it too
    assert {path: path.read_bytes() for path in model.rglob("*") if path.is_file()} == before
    times = [path.stat().st_mtime_ns for path in sorted(kept.rglob("*.safetensors"))]
    assert with_safetensors(model, SdImg2Img.parts) == kept  # once
    assert [path.stat().st_mtime_ns for path in sorted(kept.rglob("*.safetensors"))] == times


def test_other_pickles_have_another_copy(model: Path, own_cache: Path) -> None:
    path = pickled(model)
    kept = with_safetensors(model, SdImg2Img.parts)
    state = torch.load(path, weights_only=True)
    torch.save({name: value + 1 for name, value in state.items()}, path)
    assert with_safetensors(model, SdImg2Img.parts) != kept


def test_tensors_that_share_memory_are_kept(model: Path, own_cache: Path) -> None:
    path = pickled(model)
    state = torch.load(path, weights_only=True)
    state["conv_in.bias"] = state["conv_out.weight"].flatten()[:16]
    state["conv_norm_out.bias"] = state["conv_norm_out.weight"]
    torch.save(state, path)
    kept = load_file(with_safetensors(model, SdImg2Img.parts) / "unet" / PLAIN)
    assert all(torch.equal(kept[name], value) for name, value in state.items())


class Bomb:
    """What a pickle can do."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_a_pickle_that_would_run_something_is_refused_and_does_not_run(
    model: Path, own_cache: Path, tmp_path: Path
) -> None:
    path = pickled(model)
    torch.save({"conv_in.weight": Bomb(tmp_path / "it ran")}, path)
    with pytest.raises(DiffcleanError, match=r"is refused(.|\n)*save_pretrained"):
        with_safetensors(model, SdImg2Img.parts)
    assert not (tmp_path / "it ran").exists()
    assert not list((own_cache / "models").iterdir())  # nothing half made


@pytest.mark.parametrize("content", [[torch.zeros(1)], {"state_dict": {"a": torch.zeros(1)}}, torch.zeros(1)])
def test_a_pickle_that_is_no_table_of_tensors_is_refused(model: Path, own_cache: Path, content: object) -> None:
    torch.save(content, pickled(model))
    with pytest.raises(DiffcleanError, match="not a table of tensors"):
        with_safetensors(model, SdImg2Img.parts)


def test_a_truncated_pickle_is_refused(model: Path, own_cache: Path) -> None:
    path = pickled(model)
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(DiffcleanError, match=r"unet/.*is refused: it holds more than tensors, or is damaged"):
        with_safetensors(model, SdImg2Img.parts)


def test_weights_in_another_form_are_named(model: Path) -> None:
    (model / "unet" / PLAIN).rename(model / "unet/model.ckpt")
    for read in (with_safetensors, lambda place, _: SdImg2Img().load(place)):
        with pytest.raises(
            DiffcleanError, match=r"unet are in a form that diffclean does not read: model.ckpt(.|\n)*save_pretrained"
        ):
            read(model, SdImg2Img.parts)


def test_shards_are_read(model: Path, model_of: Any) -> None:
    unet().save_pretrained(model / "unet", max_shard_size="40KB")
    (model / "unet" / PLAIN).unlink(missing_ok=True)
    assert len(list((model / "unet").glob("*-of-*.safetensors"))) > 1
    read = load_part(UNet2DConditionModel, model, "unet")
    assert same(read, load_part(UNet2DConditionModel, model_of("sd-img2img"), "unet"))


def test_a_missing_shard_is_said(model: Path) -> None:
    unet().save_pretrained(model / "unet", max_shard_size="40KB")
    (model / "unet" / PLAIN).unlink(missing_ok=True)
    next((model / "unet").glob("*-00002-of-*.safetensors")).unlink()
    with pytest.raises(DiffcleanError, match=r"unet cannot be read(.|\n)*00002-of"):
        SdImg2Img().load(model)


def test_of_plain_and_half_precision_the_plain_are_read(model: Path, model_of: Any) -> None:
    unet().half().save_pretrained(model / "unet", variant="fp16")
    assert (model / "unet" / f"{STEM}.fp16.safetensors").is_file()
    read = load_part(UNet2DConditionModel, model, "unet")
    assert same(read, load_part(UNet2DConditionModel, model_of("sd-img2img"), "unet"))


def test_half_precision_alone_is_widened_and_said(model: Path, caplog: pytest.LogCaptureFixture) -> None:
    (model / "unet" / PLAIN).unlink()
    unet().half().save_pretrained(model / "unet", variant="fp16")
    with caplog.at_level(logging.INFO, "diffclean"):
        read = load_part(UNet2DConditionModel, model, "unet")
    assert {parameter.dtype for parameter in read.parameters()} == {torch.float32}
    assert same(read, unet().half().float())
    assert "fp16 only" in caplog.text


def test_truncated_weights(model: Path) -> None:
    data = (model / "unet" / PLAIN).read_bytes()
    (model / "unet" / PLAIN).write_bytes(data[: len(data) // 2])
    with pytest.raises(DiffcleanError, match=r"weights in .*unet cannot be read: (.|\n)*Copy them again"):
        SdImg2Img().load(model)


def test_a_weight_that_is_not_there_is_never_made_up(model: Path) -> None:
    from safetensors.torch import save_file

    weights = load_file(model / "unet" / PLAIN)
    del weights["conv_in.weight"]
    (model / "unet" / PLAIN).unlink()
    save_file(weights, model / "unet" / PLAIN, metadata={"format": "pt"})
    with pytest.raises(DiffcleanError, match=r"not those of a UNet2DConditionModel: conv_in.weight missing"):
        SdImg2Img().load(model)


@pytest.mark.parametrize(
    ("family", "part"),
    [
        ("sd-img2img", "unet/config.json"),
        ("sd-img2img", "scheduler/scheduler_config.json"),
        ("sd-img2img", "tokenizer"),
        ("stable-unclip", "image_normalizer/config.json"),
        ("stable-unclip", "image_noising_scheduler/scheduler_config.json"),
        ("versatile-diffusion", "image_unet/config.json"),
        ("versatile-diffusion", "image_feature_extractor/preprocessor_config.json"),
        ("sd-image-variations", "image_encoder/config.json"),
    ],
)
def test_a_missing_component_is_named(model_of: Any, tmp_path: Path, family: str, part: str) -> None:
    model = Path(shutil.copytree(model_of(family), tmp_path / "model"))
    if (model / part).is_dir():
        shutil.rmtree(model / part)
    else:
        (model / part).unlink()
    with pytest.raises(DiffcleanError, match=f"not a whole model: {part}.* is missing"):
        family_named(family).load(model)


def no_weights(model: Path) -> None:
    (model / "unet" / PLAIN).unlink()


def another_class(model: Path) -> None:
    change(model / "unet/config.json", _class_name="UNet3DConditionModel")


def inpainting(model: Path) -> None:
    unet(in_channels=9).save_pretrained(model / "unet")


def another_text(model: Path) -> None:
    unet(cross_attention_dim=20).save_pretrained(model / "unet")


def damaged(model: Path) -> None:
    (model / "unet/config.json").write_text("{")


def change(path: Path, **entries: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (no_weights, "There are no weights in .*unet"),
        (another_class, "holds a UNet3DConditionModel; a UNet2DConditionModel was expected"),
        (inpainting, r"in_channels 9 \(expected 4\)(.|\n)*inpainting"),
        (another_text, r"cross_attention_dim 20 \(expected 16\)"),
        (damaged, "config.json is damaged"),
    ],
)
def test_a_network_that_does_not_belong_there(model: Path, spoil: Callable[[Path], None], said: str) -> None:
    spoil(model)
    with pytest.raises(DiffcleanError, match=said):
        SdImg2Img().load(model)


@pytest.mark.parametrize(
    "entries",
    [{"crop_size": {"height": 10, "width": 10}}, {"resample": 2}, {"do_normalize": False}, {"rescale_factor": 1}],
)
def test_a_picture_that_would_be_seen_otherwise(model_of: Any, tmp_path: Path, entries: dict[str, Any]) -> None:
    """The graph has CLIP's image processor in it; another one would silently give the encoder another picture."""
    model = Path(shutil.copytree(model_of("sd-image-variations"), tmp_path / "model"))
    change(model / "feature_extractor/preprocessor_config.json", **entries)
    with pytest.raises(DiffcleanError, match="image processor differs from that of CLIP"):
        family_named("sd-image-variations").load(model)


def test_a_model_of_no_family_is_refused_by_name(model: Path) -> None:
    change(model / "model_index.json", _class_name="PixArtSigmaPipeline")
    with pytest.raises(
        DiffcleanError, match=r"holds a PixArtSigmaPipeline(.|\n)*Known: (.|\n)*StableDiffusionPipeline"
    ):
        recipe_for(str(model))


@pytest.mark.parametrize(
    ("own", "ours"),
    [
        ("DDIMScheduler", "ddim"),
        ("PNDMScheduler", "ddim"),
        ("EulerDiscreteScheduler", "euler"),
        ("EulerAncestralDiscreteScheduler", "euler-a"),
        ("DPMSolverMultistepScheduler", "dpm++"),
        ("UniPCMultistepScheduler", "unipc"),
        ("LMSDiscreteScheduler", "euler"),
    ],
)
def test_a_models_own_scheduler_or_the_nearest_with_a_note(
    own: str, ours: str, caplog: pytest.LogCaptureFixture
) -> None:
    from diffclean.variation.schedule import SCHEDULERS, schedule_of, scheduler_for

    config = dict(scheduler().config) | {"_class_name": own, "skip_prk_steps": True, "set_alpha_to_one": False}
    with caplog.at_level(logging.INFO, "diffclean"):
        assert scheduler_for(config) == ours
    assert bool(caplog.records) == (own not in {name for name, _ in SCHEDULERS.values()})
    if caplog.records:
        assert own in caplog.text
        assert "`scheduler`" in caplog.text
    assert len(schedule_of(ours, config, 4).timesteps) == 4


def sharded(model: Path) -> Path:
    """The index of a U-Net in shards."""
    unet().save_pretrained(model / "unet", max_shard_size="40KB")
    (model / "unet" / PLAIN).unlink(missing_ok=True)
    return model / "unet" / f"{STEM}.safetensors.index.json"


@pytest.mark.parametrize("name", ["../../elsewhere.safetensors", "/etc/passwd", "pipe.safetensors", 5, ["x"]])
def test_an_index_names_only_the_shards_beside_it(name: Any, model: Path) -> None:
    index = sharded(model)
    os.mkfifo(index.parent / "pipe.safetensors")
    content = json.loads(index.read_text())
    content["weight_map"]["conv_in.weight"] = name
    index.write_text(json.dumps(content))
    with pytest.raises(DiffcleanError, match="which is not one of the shards beside it"):
        load_part(UNet2DConditionModel, model, "unet")


@pytest.mark.parametrize("text", ["[]", "{}", '{"weight_map": []}', "[" * 100_000, "{"])
def test_a_damaged_index_is_a_message(text: str, model: Path) -> None:
    index = sharded(model)
    index.write_text(text)
    with pytest.raises(DiffcleanError, match=r"index\.json is damaged"):
        load_part(UNet2DConditionModel, model, "unet")


def test_a_pipe_in_place_of_weights_is_not_waited_for(model: Path, own_cache: Path) -> None:
    (model / "unet" / PLAIN).unlink()
    os.mkfifo(model / "unet" / PLAIN)
    with pytest.raises(DiffcleanError, match="not a plain file"):
        load_part(UNet2DConditionModel, model, "unet")
    (model / "unet" / PLAIN).unlink()
    os.mkfifo(model / "unet" / f"{STEM}.bin")
    with pytest.raises(DiffcleanError, match="is refused"):
        with_safetensors(model, SdImg2Img.parts)
