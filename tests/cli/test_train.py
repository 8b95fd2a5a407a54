"""`diffclean train`."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffclean.cli.main import main


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for level, name in ((40, "dark"), (200, "light")):
        (tmp_path / "data" / name).mkdir(parents=True)
        for index in range(8):
            Image.fromarray(np.full((16, 16, 3), level + index, np.uint8)).save(
                tmp_path / "data" / name / f"{index}.png"
            )
    return tmp_path / "data"


QUICK = ["--arch", "wrn-16-1", "--epochs", "1", "--batch-size", "8", "--device", "cpu", "-q"]


def test_trains_and_says_so(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "t.pt"
    assert main(["train", str(data), "-o", str(out), "--test", str(data), "--json", *QUICK]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["path"] == str(out)
    assert set(result["metrics"]) == {"loss", "train_accuracy", "test_accuracy"}
    assert out.is_file()
    assert Path(result["log"]).is_file()
    assert main(["train", str(data), "-o", str(out), *QUICK]) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert main(["train", str(data), "-o", str(out), "--overwrite", *QUICK]) == 0
    assert f"The classifier is in {out}" in capsys.readouterr().out


def test_dry_run_writes_nothing(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", str(data), "-o", str(tmp_path / "t.pt"), "--dry-run"]) == 0
    assert "16 images of 2 classes" in capsys.readouterr().out
    assert [p.name for p in tmp_path.iterdir()] == ["data"]


def test_an_image_that_cannot_be_read(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (data / "dark" / "broken.png").write_bytes(b"nonsense")
    assert main(["train", str(data), "-o", str(tmp_path / "t.pt"), *QUICK]) == 3
    assert "dark/broken.png: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["-o", "t.onnx"], 2, ".pt or a .safetensors"),
        (["-o", "t.pt", "--arch", "resnet1"], 2, "no architecture 'resnet1'"),
        (["-o", "t.pt", "--device", "gpu0"], 2, "'gpu0' cannot be used"),
        (["-o", "t.pt", "--test", "nowhere"], 1, "nowhere"),
    ],
)
def test_mistakes(
    arguments: list[str],
    code: int,
    message: str,
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", str(data), *arguments]) == code
    assert message in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["data"]
