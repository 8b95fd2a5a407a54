"""Loading a model of the family micro, and its parts; what the sampler makes of them is in variation/test_sampler."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from diffclean.errors import DiffcleanError
from diffclean.families.micro import Micro
from diffclean.families.micro_model import NO_VIEW_LEVEL, PixelDecoder, ViewEncoder

WEIGHTS = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def test_a_model_loads(tiny_model: Path) -> None:
    model = Micro().load(tiny_model)
    assert (model.family, model.image_size, set(model.components)) == (
        "micro",
        16,
        {"image_encoder", "unet", "vae_decoder"},
    )
    assert model.scheduler["prediction_type"] == "sample"
    unet = model.components["unet"].module
    assert not unet.training
    assert {parameter.dtype for parameter in unet.parameters()} == {torch.float32}
    saved = load_file(tiny_model / WEIGHTS)
    for name, parameter in unet.named_parameters():
        assert torch.equal(parameter.half(), saved[name]), name


def test_signatures_are_true(tiny_model: Path) -> None:
    """What a component declares is what its module takes and gives."""
    from diffclean.export.onnx import example_inputs

    for component in Micro().load(tiny_model).components.values():
        inputs = example_inputs(component.inputs, batch=2)
        with torch.no_grad():
            outputs = component.module(*(inputs[port.name] for port in component.inputs))
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        found = [(tuple(output.shape), str(output.dtype)) for output in outputs]
        assert found == [((2, *port.shape), f"torch.{port.dtype}") for port in component.outputs]


@pytest.mark.parametrize("part", ["unet/config.json", WEIGHTS, "scheduler/scheduler_config.json"])
def test_a_missing_component_is_named(model: Path, part: str) -> None:
    (model / part).unlink()
    with pytest.raises(DiffcleanError, match=f"{part} is missing"):
        Micro().load(model)


def test_a_pickle_in_place_of_safetensors_is_refused(model: Path) -> None:
    """Reading it could run code; it must not even be opened."""
    weights = load_file(model / WEIGHTS)
    (model / WEIGHTS).unlink()
    torch.save(weights, model / "unet/diffusion_pytorch_model.bin")
    with pytest.raises(DiffcleanError, match="safetensors is missing"):
        Micro().load(model)


def test_a_pickle_under_the_name_of_safetensors_is_refused(model: Path) -> None:
    weights = load_file(model / WEIGHTS)
    (model / WEIGHTS).unlink()  # it is mapped into memory: a new file, not the same one written over
    torch.save(weights, model / WEIGHTS)
    with pytest.raises(DiffcleanError, match="is damaged or is not a safetensors file"):
        Micro().load(model)


def test_a_network_of_another_family(model: Path) -> None:
    config = json.loads((model / "unet/config.json").read_text())
    (model / "unet/config.json").write_text(json.dumps(config | {"_class_name": "UNet2DConditionModel"}))
    with pytest.raises(DiffcleanError, match="holds a UNet2DConditionModel"):
        Micro().load(model)


@pytest.mark.parametrize("part", ["unet/config.json", "scheduler/scheduler_config.json"])
@pytest.mark.parametrize("text", ["", "{", "[]"])
def test_a_damaged_configuration(model: Path, part: str, text: str) -> None:
    if part.startswith("scheduler") and text == "[]":
        text = "{,}"
    (model / part).write_text(text)
    with pytest.raises(DiffcleanError, match="json is damaged: "):
        Micro().load(model)


def test_truncated_weights(model: Path) -> None:
    data = (model / WEIGHTS).read_bytes()
    (model / WEIGHTS).write_bytes(data[: len(data) // 2])
    with pytest.raises(DiffcleanError, match="cannot be read"):
        Micro().load(model)


def test_weights_of_another_shape(model: Path) -> None:
    config = json.loads((model / "unet/config.json").read_text())
    (model / "unet/config.json").write_text(json.dumps(config | {"channels": 16}))
    with pytest.raises(DiffcleanError, match="cannot be read"):
        Micro().load(model)


def test_a_weight_that_is_not_there_is_never_made_up(model: Path) -> None:
    """diffusers only warns, and goes on with random numbers."""
    weights = load_file(model / WEIGHTS)
    del weights["leave.bias"]
    (model / WEIGHTS).unlink()
    save_file(weights, model / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(DiffcleanError, match=r"leave.bias is missing"):
        Micro().load(model)


def test_a_weight_too_many(model: Path) -> None:
    weights = load_file(model / WEIGHTS) | {"extra.weight": torch.zeros(3)}
    (model / WEIGHTS).unlink()
    save_file(weights, model / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(DiffcleanError, match=r"extra.weight is unknown"):
        Micro().load(model)


def test_the_decoder_flags_an_image_in_its_own_row_only() -> None:
    sample = torch.rand(5, 3, 16, 16) * 2 - 1
    sample[1, 0, 0, 0] = float("nan")
    sample[2, 2, 15, 15] = float("inf")
    sample[4, 1, 7, 3] = float("-inf")
    pixels, finite = PixelDecoder()(sample)
    assert finite.tolist() == [True, False, False, True, False]
    assert pixels.dtype == torch.uint8
    expected = (sample[[0, 3]] * 127.5 + 127.5).round().permute(0, 2, 3, 1)
    assert torch.equal(pixels[[0, 3]].float(), expected)


def test_the_decoder_clips() -> None:
    pixels, finite = PixelDecoder()(torch.tensor([-9.0, -1.0, 0.0, 1.0, 9.0]).expand(1, 3, 1, 5))
    assert pixels[0, 0, :, 0].tolist() == [0, 0, 128, 255, 255]
    assert finite.all()


def test_no_view_withholds_all_of_the_source() -> None:
    pixels = torch.randint(0, 256, (1, 16, 16, 3), dtype=torch.uint8)
    view = ViewEncoder()(pixels, torch.randn(1, 3, 8, 8), torch.tensor([NO_VIEW_LEVEL]))
    assert not view.any()
    told = Micro().withhold({"view": torch.ones(2, 3, 8, 8), "view_level": torch.tensor([0.3, 0.3])})
    assert not told["view"].any()
    assert told["view_level"].tolist() == [NO_VIEW_LEVEL] * 2
