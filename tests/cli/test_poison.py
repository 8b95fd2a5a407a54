"""`diffclean poison`."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffclean.cli.main import main


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder is `tmp_path`; `data` has two classes of five images."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for index in range(5):
            Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(tmp_path / "data" / name / f"{index}.png")
    return tmp_path / "data"


BADNETS = ["poison", "data", "--attack", "badnets", "--target", "dog", "-o", "bad"]


@pytest.mark.usefixtures("data")
def test_poison_and_replay(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*BADNETS, "--rate", "0.2", "-p", "size=4", "-p", "kind=white", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["images"], result["poisoned"], result["covers"]) == (10, 2, 0)
    assert (result["labels"], result["form"], result["target"]) == ("all-to-one", "train", "dog")
    assert (result["parameters"]["size"], result["parameters"]["kind"]) == (4, "white")
    assert len(list(Path("bad/dog").iterdir())) == 7
    assert main(["poison", "data", "--from", "bad/poison.json", "-o", "triggered"]) == 0
    assert "10 images, 10 of them with the badnets trigger" in capsys.readouterr().out
    for path in Path("triggered").rglob("*.png"):
        assert (np.asarray(Image.open(path))[-4:, -4:] == 255).all()


@pytest.mark.usefixtures("data")
def test_modifiers(capsys: pytest.CaptureFixture[str]) -> None:
    def made(*arguments: str) -> dict[str, object]:
        assert main(["poison", "data", "--attack", "badnets", "-o", "bad", "--dry-run", "--json", *arguments]) == 0
        result: dict[str, object] = json.loads(capsys.readouterr().out)
        return {name: result[name] for name in ("poisoned", "covers", "labels", "target")}

    assert made("--labels", "all-to-all", "--rate", "0.8") == {
        "poisoned": 8,
        "covers": 0,
        "labels": "all-to-all",
        "target": "",
    }
    clean = made("--labels", "clean", "--target", "dog", "--rate", "0.5")
    assert (clean["poisoned"], clean["labels"]) == (5, "clean")
    assert made("--poison-target-class", "--target", "dog", "--rate", "0.8")["poisoned"] == 8
    assert made("--target", "dog", "--cover-rate", "0.3")["covers"] == 3


@pytest.mark.usefixtures("data")
def test_covers_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["poison", "data", "--attack", "wanet", "--target", "dog", "-o", "bad"]) == 0
    assert "10 images, 1 of them with the wanet trigger and 2 as covers, in bad." in capsys.readouterr().out


def test_help_names_every_attack_and_mode() -> None:
    from diffclean.attacks.base import Labels
    from diffclean.attacks.registry import ATTACKS
    from diffclean.cli.poison import command

    options = {param.name: param for param in command.params}
    words = options["attack"].help.removeprefix("The attack, one of ").rstrip(".").split(", ")  # type: ignore[attr-defined]
    assert words == list(ATTACKS)
    assert list(options["labels"].type.choices) == list(Labels)  # type: ignore[attr-defined]


@pytest.mark.usefixtures("data")
def test_dry_run_writes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*BADNETS, "--dry-run"]) == 0
    assert "10 images, 1 of them" in capsys.readouterr().out
    assert not Path("bad").exists()


@pytest.mark.usefixtures("data")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*BADNETS, "--rate", "1"], "leaves no clean image"),
        ([*BADNETS, "-p", "size"], "NAME=VALUE"),
        ([*BADNETS, "-p", "sise=3"], "no parameter sise"),
        ([*BADNETS, "-p", "size=17"], "does not fit"),
        ([*BADNETS, "--target", "cow"], "It has: cat, dog."),
        ([*BADNETS, "--attack", "nonsense"], "The attacks are: badnets, blended, sig, "),
        (["poison", "data", "-o", "bad"], "Give --attack, or --from"),
        (["poison", "data", "-o", "bad", "--attack", "badnets"], "need a target class, given with --target."),
        ([*BADNETS, "--from", "x.json"], "--attack, --target cannot be given with it"),
        (
            ["poison", "data", "-o", "bad", "--from", "x.json", "--no-poison-target-class", "-p", "size=3"],
            "--poison-target-class, --parameter cannot be given with it",
        ),
        ([*BADNETS, "--labels", "some"], "'some' is not one of"),
        ([*BADNETS, "--labels", "clean", "--rate", "0.6"], "Give at most --rate 0.5."),
        ([*BADNETS, "-p", "size=-1", "-p", "kind=pink", "--rate", "7"], "kind must be one of"),
    ],
)
def test_mistakes(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert message in capsys.readouterr().err
    assert not Path("bad").exists()


def test_an_image_that_cannot_be_read(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (data / "cat" / "broken.png").write_bytes(b"nonsense")
    assert main(BADNETS) == 3
    assert "cat/broken.png: " in capsys.readouterr().out


@pytest.mark.usefixtures("data")
def test_an_output_that_exists(capsys: pytest.CaptureFixture[str]) -> None:
    Path("bad").mkdir()
    assert main(BADNETS) == 1
    assert main([*BADNETS, "--dry-run"]) == 1
    assert "bad exists" in capsys.readouterr().err
