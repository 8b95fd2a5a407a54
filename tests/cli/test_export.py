"""`diffclean export` as it is typed. How engines are kept and compiled is in export/."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from small_models import saved

from diffclean.cli.main import main
from diffclean.data.hashes import hashes_below
from diffclean.engine.manifest import read_engine_manifest
from diffclean.errors import ExitCode
from diffclean.runtime.choose import open_engine

Capture = pytest.CaptureFixture[str]
Draw = Callable[..., Path]
PLACES = ("image_encoder", "unet", "vae_decoder")


@pytest.fixture
def engine(tiny_engine: Path, tmp_path: Path) -> Path:
    """An engine of one's own, as `export tiny -o` leaves it."""
    return Path(shutil.copytree(tiny_engine, tmp_path / "engine"))


@pytest.mark.slow
def test_onnx_and_openvino_then_variate(
    tiny_model: Path, tmp_path: Path, draw_photos: Draw, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole way: export into a folder, and regenerate a data set with that folder alone."""
    monkeypatch.chdir(tmp_path)
    assert main(["export", str(tiny_model), "-o", "E", "--target", "onnx,openvino"]) == ExitCode.DONE
    captured = capsys.readouterr()
    assert "unet           onnx" in captured.out
    assert "differs from torch by" in captured.out
    assert "unet           openvino" in captured.out
    assert "diffclean variate DATA --engine E" in captured.out
    assert {form.component for form in read_engine_manifest(Path("E")).compiled} == set(PLACES)
    draw_photos(Path("data"), ["cat/a.png", "dog/b.png"])
    command = ["variate", "data", "--engine", "E", "--runtime", "openvino", "--steps", "1", "--batch", "2", "--json"]
    assert main(command) == ExitCode.DONE
    found = json.loads(capsys.readouterr().out)
    assert found["made"] == 2
    assert found["engine"].startswith(read_engine_manifest(Path("E")).fingerprint[:16])


def test_what_is_there_is_kept(engine: Path, tiny_model: Path, capsys: Capture) -> None:
    command = ["export", str(tiny_model), "-o", str(engine), "--target", "openvino", "--json"]
    assert main(command) == ExitCode.DONE
    first = json.loads(capsys.readouterr().out)
    assert (first["exported"], first["engine"], first["precision"], first["image_size"]) == (
        False,
        str(engine),
        "fp32",
        16,
    )
    assert [(each["component"], each["made"]) for each in first["compiled"]] == [(place, True) for place in PLACES]
    assert first["components"]["unet"]["parity"]["max_relative"] <= 1e-4
    before = hashes_below(engine)
    assert main(command) == ExitCode.DONE
    second = json.loads(capsys.readouterr().out)
    assert [each["made"] for each in second["compiled"]] == [False] * 3
    assert {k: v for k, v in second.items() if k != "compiled"} == {k: v for k, v in first.items() if k != "compiled"}
    assert hashes_below(engine) == before


def test_without_a_place_it_is_the_one_that_variate_uses(tiny_model: Path, tiny_engine: Path, capsys: Capture) -> None:
    assert main(["export", str(tiny_model), "--json"]) == ExitCode.DONE
    assert json.loads(capsys.readouterr().out)["engine"] == str(tiny_engine)


def test_dry_run_of_a_new_engine(tiny_model: Path, tmp_path: Path, capsys: Capture) -> None:
    place = tmp_path / "new"
    command = ["export", str(tiny_model), "-o", str(place), "--target", "openvino", "--dry-run"]
    before = sorted(tmp_path.rglob("*"))
    assert main(command) == ExitCode.DONE
    said = capsys.readouterr().out
    assert "Graphs in fp32: would be made." in said
    assert "every component for openvino: would be made." in said
    assert "Nothing was written." in said
    assert main([*command, "--json", "--precision", "bf16"]) == ExitCode.DONE
    found = json.loads(capsys.readouterr().out)
    weights = (tiny_model / "unet/diffusion_pytorch_model.safetensors").stat().st_size
    assert 1.8 * weights < found["bytes"] <= 2 * weights  # they are stored in half precision
    assert found["dry_run"]
    assert found["graphs"] == {"make": True, "why": ""}
    assert sorted(tmp_path.rglob("*")) == before


def test_dry_run_of_one_that_is_there(engine: Path, tiny_model: Path, capsys: Capture) -> None:
    command = ["export", str(tiny_model), "-o", str(engine), "--target", "openvino"]
    assert main(command) == ExitCode.DONE
    (engine / "unet/openvino.bin").unlink()
    capsys.readouterr()
    before = hashes_below(engine)
    assert main([*command, "--dry-run"]) == ExitCode.DONE
    said = capsys.readouterr().out
    assert "Graphs in fp32: would be kept, because a fitting one exists." in said
    assert "image_encoder for openvino: would be kept, because a fitting one exists." in said
    assert "unet for openvino: would be made again: unet/openvino.bin is missing." in said
    assert hashes_below(engine) == before


def test_dry_run_fetches_nothing_and_says_what_a_recipe_needs(capsys: Capture) -> None:
    command = ["export", "sdxl-turbo", "--dry-run", "--precision", "fp16"]
    assert main(command) == ExitCode.DONE
    said = capsys.readouterr().out
    assert "Stability AI Non-Commercial Research Community License" in said
    assert "(NOT free for production)" in said
    assert (
        "Needs:   about 12.9 GiB to fetch, about 19.4 GiB of memory to export, at least 4.9 GiB of memory to run, "
        in said
    )
    assert "2 denoising steps by default" in said
    assert "About 4.9 GiB would be written" in said
    assert main([*command, "--json"]) == ExitCode.DONE
    found = json.loads(capsys.readouterr().out)["model"]
    assert (found["name"], found["production"], found["steps"]) == ("sdxl-turbo", False, 2)
    assert found["run_bytes"] < found["fetched_bytes"] < found["export_bytes"]
    assert "not pinned" not in said


def test_dry_run_says_if_a_recipe_is_not_pinned(capsys: Capture) -> None:
    """Of both its repositories."""
    assert main(["export", "flux-redux", "--dry-run"]) == ExitCode.DONE
    places = "black-forest-labs/FLUX.1-dev@main and black-forest-labs/FLUX.1-Redux-dev@main"
    assert f"Source:  {places}, not pinned to a commit" in capsys.readouterr().out


def test_dry_run_of_an_unknown_model_says_that_its_size_is_not_known(capsys: Capture) -> None:
    assert main(["export", "owner/name", "--dry-run"]) == ExitCode.DONE
    said = capsys.readouterr().out
    assert "An amount that is not known before the model is fetched would be written" in said
    assert "Needs:" not in said


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        (["--target", "coreml"], ExitCode.USAGE, "There is no target 'coreml'"),
        (["--precision", "fp8"], ExitCode.USAGE, "fp8"),
        (["--batch", "4:2:8"], ExitCode.USAGE, "4:2:8"),
        (["--batch", "many"], ExitCode.USAGE, "'many' is not a profile of batch sizes"),
        (["--batch", "0:1:2"], ExitCode.USAGE, "0:1:2"),
        (["--size", "0"], ExitCode.USAGE, "--size"),
        (["--size", "24"], ExitCode.CANNOT, "regenerates squares of 16 px, not of 24"),
        (["--arch", "8.6"], ExitCode.USAGE, "--arch is for TensorRT"),
        (["--weights", "fp8", "--target", "tensorrt-rtx", "--arch", "8.6"], ExitCode.USAGE, "Use --weights int8"),
        (["--arch", "ada", "--target", "tensorrt-rtx"], ExitCode.USAGE, "'ada' is not a list of GPU architectures"),
    ],
)
def test_mistakes(
    tiny_model: Path, tmp_path: Path, capsys: Capture, more: list[str], code: ExitCode, said: str
) -> None:
    assert main(["export", str(tiny_model), "-o", str(tmp_path / "E"), *more]) == code
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.out == ""
    assert "Traceback" not in captured.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("model", "code", "said"),
    [
        ("vega", ExitCode.USAGE, "There is no engine 'vega'"),
        ("./gone", ExitCode.USAGE, "gone"),
        (".", ExitCode.CANNOT, "no model_index.json"),
    ],
)
def test_no_model(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch, model: str, code: ExitCode, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for more in ([], ["--dry-run"]):
        assert main(["export", model, *more]) == code
        assert said in capsys.readouterr().err


def test_another_engine_is_in_the_way(engine: Path, tiny_model: Path, capsys: Capture) -> None:
    command = ["export", str(tiny_model), "-o", str(engine), "--precision", "bf16"]
    before = hashes_below(engine)
    for more in ([], ["--dry-run"]):
        assert main([*command, *more]) == ExitCode.CANNOT
        said = capsys.readouterr().err
        assert "holds another engine: its options differ from the wanted ones (precision fp32, wanted is bf16)" in said
        assert "--overwrite" in said
    assert hashes_below(engine) == before
    assert main([*command, "--overwrite"]) == ExitCode.DONE
    assert read_engine_manifest(engine).precision == "bf16"


def test_a_folder_of_somebodys(tiny_model: Path, tmp_path: Path, capsys: Capture) -> None:
    """Above all the model's own."""
    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    before = hashes_below(model)
    assert main(["export", str(model), "-o", str(model), "--overwrite"]) == ExitCode.CANNOT
    assert "holds something else, not an engine" in capsys.readouterr().err
    assert hashes_below(model) == before


@pytest.mark.slow
def test_another_size(tmp_path: Path, capsys: Capture) -> None:
    """The engine regenerates squares of that size, whatever the model's own is."""
    model = saved("sd-image-variations", tmp_path / "model")
    place = tmp_path / "engine"
    assert main(["export", str(model), "-o", str(place), "--size", "64", "--json"]) == ExitCode.DONE
    assert json.loads(capsys.readouterr().out)["image_size"] == 64
    assert open_engine(place, "onnxruntime", threads=1).manifest.components["vae_decoder"].outputs[0].shape[0] == 64
    assert main(["export", str(model), "-o", str(tmp_path / "other"), "--size", "50"]) == ExitCode.CANNOT
    assert "Try: --size 64" in capsys.readouterr().err


@pytest.mark.slow
def test_tensorrt_rtx(engine: Path, tiny_model: Path, capsys: Capture) -> None:
    """Compiled for real, with no GPU: its key is in the result."""
    pytest.importorskip("tensorrt_rtx")
    command = ["export", str(tiny_model), "-o", str(engine), "--precision", "fp32", "--target", "tensorrt-rtx"]
    assert main([*command, "--batch", "1:2:4", "--arch", "8.6,8.9", "--json"]) == ExitCode.DONE
    found = {each["component"]: each for each in json.loads(capsys.readouterr().out)["compiled"]}
    assert found["unet"]["profiles"] == ["2", "1:2:8"]
    assert found["vae_decoder"]["profiles"] == ["2", "1:2:4"]
    assert found["unet"]["arch"] == ["8.6", "8.9"]
    assert (engine / "unet/model.tensorrt-rtx.engine").is_file()
    assert main([*command, "--arch", "9.0"]) == ExitCode.USAGE
    assert "has no target 9.0" in capsys.readouterr().err


def test_dry_run_of_what_this_machine_cannot_compile(
    engine: Path, tiny_model: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)  # as where it is not installed
    for place in (engine, engine.parent / "new"):
        command = ["export", str(tiny_model), "-o", str(place), "--target", "tensorrt", "--precision", "fp32"]
        assert main([*command, "--dry-run"]) == ExitCode.DONE
        assert "This machine cannot compile for tensorrt: " in capsys.readouterr().out
