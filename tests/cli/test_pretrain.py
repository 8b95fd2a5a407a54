"""`diffclean pretrain` as it is typed, and `variate` with the model that it made."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from diffclean.cli.main import main
from diffclean.errors import ExitCode

RECIPES = Path(__file__).parents[2] / "benchmarks" / "recipes"
Capture = pytest.CaptureFixture[str]
Draw = Callable[..., Path]
SMALL = ["--images", "24", "--batch", "8", "--size", "16", "--channels", "8", "--layers", "1", "--heads", "2"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, draw_photos: Draw) -> Path:
    folder = draw_photos(tmp_path_factory.mktemp("trusted"), [f"{index % 3}/{index}.png" for index in range(130)])
    (folder / "0/broken.png").write_text("no image")
    return folder


@pytest.mark.slow
def test_from_images_to_variations(data: Path, tmp_path: Path, draw_photos: Draw, capsys: Capture) -> None:
    out = tmp_path / "run"
    command = ["pretrain", str(data), "-o", str(out), *SMALL, "--json"]
    assert main(command) == ExitCode.DONE
    captured = capsys.readouterr()
    made = json.loads(captured.out)
    assert (made["model"], made["steps"], made["unreadable"]) == (str(out / "model"), 3, 1)
    assert made["validation_loss"] > 0
    assert f"To use it: diffclean variate DATA --engine {out / 'model'}" in captured.err
    assert main(command) == ExitCode.DONE  # again: there is nothing left to do
    assert json.loads(capsys.readouterr().out)["validation_loss"] == pytest.approx(made["validation_loss"])
    source = draw_photos(tmp_path / "suspect", ["cat/a.png", "dog/b.png"])
    variate = ["variate", str(source), "--engine", str(out / "model"), "--runtime", "onnxruntime", "--steps", "2"]
    assert main([*variate, "--json"]) == ExitCode.DONE
    assert json.loads(capsys.readouterr().out)["made"] == 2
    assert len(list((tmp_path / "suspect-variations").rglob("*_v00.png"))) == 2
    assert main([*command, "--learning-rate", "0.1"]) == ExitCode.CANNOT
    error = json.loads(capsys.readouterr().out)["error"]
    assert "learning_rate: 0.0015 there, 0.1 asked" in error["message"]
    # The run folder is not the model, and says where that is.
    assert main(["variate", str(source), "--engine", str(out)]) == ExitCode.CANNOT
    assert "Point at the folder named model" in capsys.readouterr().err


def test_dry_run_says_how_long(data: Path, tmp_path: Path, capsys: Capture) -> None:
    assert main(["pretrain", str(data), "-o", str(tmp_path / "run"), *SMALL, "--dry-run", "--json"]) == ExitCode.DONE
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert "131 images, 3 steps of 8: about " in captured.err
    assert (found["images"], found["steps"]) == (131, 3)
    assert found["seconds"] == pytest.approx(3 * found["seconds_a_step"])
    command = ["pretrain", str(data), "-o", str(tmp_path / "run"), *SMALL, "--minutes", "1.5", "--dry-run", "--json"]
    assert main(command) == ExitCode.DONE
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert "131 images, 1.5 minutes of steps of 8: on this machine about " in captured.err
    assert found["seconds"] == pytest.approx(90, abs=found["seconds_a_step"])
    assert not (tmp_path / "run").exists()


def test_the_defaults_are_those_that_made_the_shipped_model() -> None:
    """Whoever ships another one changes both; the command line and the configuration agree as well."""
    from diffclean.cli.pretrain import command
    from diffclean.pretraining.config import PretrainConfig

    shipped = tomllib.loads((RECIPES.parents[1] / "engines/micro/pretrain.toml").read_text())["pretrain"]
    config = PretrainConfig()
    typed = {option.name: option.default for option in command.params}
    assert shipped
    for name, value in shipped.items():
        assert getattr(config, name.replace("-", "_")) == typed[name.replace("-", "_")] == value, name


@pytest.mark.slow
def test_coarse_views_and_varied_corruptions(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = ["pretrain", str(data), "-o", str(out), *SMALL, "--coarse-views", "--corruptions", "varied"]
    assert main([*command, "--low-resolution", "1"]) == ExitCode.DONE
    config = json.loads((out / "config.json").read_text())
    assert (config["coarse_views"], config["corruptions"]["patch"] > 0) == (True, True)
    assert main(["variate", str(data / "1"), "-o", str(tmp_path / "made"), "--engine", str(out / "model")]) == 0
    assert len(list((tmp_path / "made").rglob("*_v00.png"))) == 43


@pytest.mark.parametrize("recipe", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_recipe_is_understood(data: Path, tmp_path: Path, recipe: Path, capsys: Capture) -> None:
    command = ["pretrain", str(data), "-o", str(tmp_path / "run"), "--config", str(recipe), "--dry-run"]
    assert main(command) == ExitCode.DONE
    assert "steps of 32: about " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        (["--size", "20"], ExitCode.USAGE, "--size 20"),
        (["--heads", "5"], ExitCode.USAGE, "--heads 5"),
        (["--seed", "-1"], ExitCode.USAGE, "--seed -1"),
        (["--learning-rate", "0"], ExitCode.USAGE, "learning-rate"),
        (["--minutes", "5", "--decay-share", "1"], ExitCode.USAGE, "--decay-share 1"),
    ],
)
def test_mistakes(data: Path, tmp_path: Path, capsys: Capture, more: list[str], code: ExitCode, said: str) -> None:
    assert main(["pretrain", str(data), "-o", str(tmp_path / "run"), *SMALL, *more]) == code
    assert said in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_too_few_images(tmp_path: Path, draw_photos: Draw, capsys: Capture) -> None:
    source = draw_photos(tmp_path / "few", ["a.png", "b.png"])
    assert main(["pretrain", str(source), "-o", str(tmp_path / "run"), *SMALL]) == ExitCode.CANNOT
    assert "2 images are too few" in capsys.readouterr().err
