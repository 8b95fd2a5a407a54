"""`diffclean evaluate`, on a classifier with random weights."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffclean.classifiers import checkpoints
from diffclean.classifiers.networks import build
from diffclean.cli.main import main


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`t.pt`, the test set `data`, and `bad`, poisoned."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for index in range(5):
            Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(tmp_path / "data" / name / f"{index}.png")
    torch.manual_seed(0)
    model = build("wrn-16-1", 2)
    with torch.no_grad():
        model.net[-1].bias[1] = 1e6  # type: ignore[index, union-attr] # says dog to everything
    checkpoints.save(Path("t.pt"), model, "wrn-16-1", {"cat": 0, "dog": 1}, (16, 16), {})
    assert main(["poison", "data", "--attack", "badnets", "--target", "cat", "-o", "bad", "-q"]) == 0


def test_clean_accuracy(capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["evaluate", "t.pt", "data", "--device", "cpu"]) == 0
    assert capsys.readouterr().out == "Clean accuracy (CA): 50.0 % (95 %: 23.7-76.3, 10 images)\n"


def test_an_attack_that_did_not_fire_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["evaluate", "t.pt", "data", "--poison", "bad/poison.json", "--undefended", "t.pt"]
    assert main(arguments) == 0
    lines = capsys.readouterr().out
    assert "Attack success rate (ASR): 0.0 %" in lines
    assert "undefended: Clean accuracy" in lines
    assert "DER): 0.500" in lines
    assert "did not fire" in lines
    assert main([*arguments, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["fired"] is False
    assert result["robust_accuracy"]["value"] == 1


def test_without_the_undefended_classifier_nobody_knows_whether_the_attack_ever_fired(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It was said of a cleaned classifier that the attack did not fire."""
    capsys.readouterr()
    assert main(["evaluate", "t.pt", "data", "--poison", "bad/poison.json"]) == 0
    lines = capsys.readouterr().out
    assert "did not fire" not in lines
    assert "Either the attack never fired, or a defence stopped it" in lines
    assert "    diffclean evaluate t.pt data --poison bad/poison.json --undefended TEACHER\n" in lines


def test_a_test_set_that_cannot_tell(capsys: pytest.CaptureFixture[str]) -> None:
    """Of the target class alone there is no attack success."""
    shutil.rmtree("data/dog")
    arguments = ["evaluate", "t.pt", "data", "--poison", "bad/poison.json", "--undefended", "t.pt"]
    assert main(arguments) == 0
    lines = capsys.readouterr().out
    assert "DATA has only images of the target class" in lines
    assert "DER" not in lines
    assert main([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["defense_effectiveness"] is None


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nowhere.pt", "data"], 1, "no file nowhere.pt"),
        (["data/cat/0.png", "data"], 1, "0.png"),
        (["t.pt", "bad"], 2, "poisoned already"),
        (["t.pt", "data", "--poison", "nowhere.json"], 1, "nowhere.json"),
        (["t.pt", "data", "--undefended", "t.pt"], 2, "--poison"),
    ],
)
def test_mistakes(arguments: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", *arguments]) == code
    assert message in capsys.readouterr().err


def test_a_model_of_anybodys(capsys: pytest.CaptureFixture[str]) -> None:
    """Bare weights, in the class order of the file beside them."""
    torch.save(checkpoints.load(Path("t.pt")).model.net.state_dict(), "bare.pth")
    Path("classes.txt").write_text("dog\ncat\n")
    capsys.readouterr()
    assert main(["evaluate", "bare.pth", "data"]) == 2
    assert "--classifier-arch" in capsys.readouterr().err
    about = ["--classifier-arch", "wrn-16-1", "--classifier-classes", "classes.txt", "--json"]
    assert main(["evaluate", "bare.pth", "data", *about]) == 0
    assert json.loads(capsys.readouterr().out)["clean_accuracy"]["value"] == 0.5
    arguments = ["evaluate", "t.pt", "data", "--poison", "bad/poison.json", "--undefended", "bare.pth", *about]
    assert main(arguments) == 0
    result = json.loads(capsys.readouterr().out)
    # Its second logit, which is dog's in t.pt, stands for cat here: the target.
    assert (result["attack_success_rate"]["value"], result["undefended"]["attack_success_rate"]["value"]) == (0, 1)


@pytest.mark.parametrize("how", ["command line", "environment", "file"])
def test_the_options_of_the_classifier_still_work_under_their_former_names(
    how: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """They were called --teacher-arch and the like, which made no sense for a student."""
    arguments = ["evaluate", "t.pt", "data"]
    if how == "command line":
        arguments += ["--teacher-arch", "wrn-16-1"]
    elif how == "environment":
        monkeypatch.setenv("DIFFCLEAN_EVALUATE_TEACHER_ARCH", "wrn-16-1")
    else:
        Path("old.toml").write_text('[evaluate]\nteacher_arch = "wrn-16-1"\n')
        arguments += ["--config", "old.toml"]
    assert main(arguments) == 2  # which is how it is seen that it was heard
    assert "Leave out --classifier-arch" in capsys.readouterr().err
