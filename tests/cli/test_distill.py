"""`diffclean distill`."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffclean.classifiers import checkpoints
from diffclean.classifiers.networks import build
from diffclean.cli.main import main

QUICK = ["--epochs", "1", "--batch-size", "8", "--device", "cpu", "--no-tensorboard", "-q"]
CLASSES = {"light": 0, "dark": 1}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory: a teacher `t.pt` and a labelled folder `set-variations`."""
    for level, name in ((40, "dark"), (200, "light")):
        (tmp_path / "set-variations" / name).mkdir(parents=True)
        for index in range(8):
            image = Image.fromarray(np.full((16, 16, 3), level + index, np.uint8))
            image.save(tmp_path / "set-variations" / name / f"{index}.png")
    model = build("wrn-16-1", 2)
    checkpoints.save(tmp_path / "t.pt", model, "wrn-16-1", CLASSES, (16, 16), {})
    torch.save(model.net.state_dict(), tmp_path / "weights.pth")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_command_of_the_design_works_as_written(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`diffclean distill --teacher t.pt`: the data, the student's architecture and its file are found."""
    assert main(["distill", "--teacher", "t.pt", "--json", *QUICK]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["path"] == "t-student.pt"
    assert {"loss", "train_agreement", "teacher_accuracy"} == set(result["metrics"])
    read = checkpoints.load(here / "t-student.pt")
    assert (read.arch, read.class_to_idx) == ("wrn-16-1", CLASSES)
    told = read.training
    assert (told["temperature"], told["alpha"], told["paper_loss"], told["targets"]) == (10.0, 1.0, False, "sampled")
    assert main(["distill", "--teacher", "t.pt", *QUICK]) == 1
    assert "t-student.pt exists" in capsys.readouterr().err


def test_a_state_dict_with_all_that_it_does_not_say(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "classes.txt").write_text("light\ndark\n")
    command = "distill --teacher weights.pth --teacher-arch wrn-16-1 --teacher-classes classes.txt -o s.safetensors"
    command += " --teacher-mean 0.1 0.2 0.3 --teacher-std 1 1 1 --alpha 1 --targets averaged --student resnet8-cifar"
    assert main([*command.split(), *QUICK]) == 0
    assert "The student is in s.safetensors (teacher accuracy" in capsys.readouterr().out
    read = checkpoints.load(here / "s.safetensors")
    assert (read.arch, read.class_to_idx) == ("resnet8-cifar", CLASSES)
    assert read.training["teacher"]["mean"] == [0.1, 0.2, 0.3]


def test_dry_run_looks_and_writes_nothing(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(path.name for path in here.iterdir())
    assert main(["distill", "--teacher", "t.pt", "--dry-run", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["images"], told["classes"], told["student"], told["data"]) == (16, 2, "wrn-16-1", "set-variations")
    assert sorted(path.name for path in here.iterdir()) == before


def test_an_image_that_cannot_be_read(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "set-variations" / "dark" / "broken.png").write_bytes(b"nonsense")
    assert main(["distill", "--teacher", "t.pt", *QUICK]) == 3
    assert "dark/broken.png: " in capsys.readouterr().out
    assert (here / "t-student.pt").is_file()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--teacher", "nowhere.pt"], 1, "no file nowhere.pt"),
        (["--teacher", "t.pt", "--data", "nowhere"], 1, "nowhere"),
        (["--teacher", "t.pt", "-o", "t.pt", "--overwrite"], 2, "written over the teacher"),
        (["--teacher", "t.pt", "--student", "resnet1"], 2, "no architecture 'resnet1'"),
        (["--teacher", "t.pt", "--teacher-arch", "wrn-16-1"], 2, "Leave out --teacher-arch"),
        (["--teacher", "weights.pth"], 2, "--teacher-arch NAME"),
        (["--teacher", "module.pt"], 1, "torch.save(model.state_dict(), 'weights.pt')"),
        (
            ["--teacher", "t.pt", "--data", "others", "--alpha", "0.5"],
            2,
            "only others has cat; only the teacher knows dark",
        ),
        ([], 2, "Missing option '--teacher'"),
    ],
)
def test_mistakes(
    arguments: list[str], code: int, message: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(build("wrn-16-1", 2), here / "module.pt")
    for name in ("cat", "light"):
        (here / "others" / name).mkdir(parents=True)
        Image.new("RGB", (16, 16)).save(here / "others" / name / "1.png")
    for dry in ([], ["--dry-run"]):
        assert main(["distill", *arguments, *dry]) == code
        assert message in capsys.readouterr().err
    assert not (here / "t-student.pt").exists()


def test_which_variations(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "set-variations").rename(here / "set")
    assert main(["distill", "--teacher", "t.pt"]) == 1
    assert "There is no *-variations folder in" in capsys.readouterr().err
    for name in ("a", "b"):
        (here / f"{name}-variations").mkdir()
    assert main(["distill", "--teacher", "t.pt"]) == 1
    assert "a-variations, b-variations" in capsys.readouterr().err
