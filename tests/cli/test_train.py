"""`diffclean train`."""

import json
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from suspect_set import TRIGGERED

from diffclean.classifiers import checkpoints
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


QUICK = ["--arch", "wrn-16-1", "--epochs", "1", "--batch-size", "8", "--device", "cpu", "--no-tensorboard", "-q"]


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


def test_options_reach_the_loop(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = "--optimizer adamw --schedule multi-step --milestones 0.3 --milestones 0.6 --ema 0.5 --warmup 0.1"
    options += " --validation-share 0.3 --patience 2 --precision fp32 --no-augment --label-smoothing 0.1 --json"
    assert main(["train", str(data), "-o", str(tmp_path / "t.safetensors"), *QUICK, *options.split()]) == 0
    result = json.loads(capsys.readouterr().out)
    assert {"validation_loss", "validation_accuracy", "best_epoch"} <= set(result["metrics"])
    told = json.loads(Path(result["log"]).read_text().splitlines()[0])
    assert told["loop"]["milestones"] == [0.3, 0.6]
    assert (told["loop"]["optimizer"], told["loop"]["schedule"], told["loop"]["ema"]) == ("adamw", "multi-step", 0.5)
    assert (told["loop"]["learning_rate"], told["loop"]["weight_decay"]) == (0.001, 0.05)
    assert (told["loop"]["augment"], told["machine"]["precision"], told["label_smoothing"]) == (False, "fp32", 0.1)


def test_the_same_command_goes_on_after_ctrl_c(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffclean.training.trainer import Trainer

    step = Trainer.train_step

    def interrupted(self: Trainer, epoch: int, number: int, *rest: object) -> object:
        if (epoch, number) == (1, 0):
            signal.raise_signal(signal.SIGINT)
        return step(self, epoch, number, *rest)  # type: ignore[arg-type]

    command = ["train", str(data), "-o", str(tmp_path / "t.pt"), *QUICK, "--epochs", "3"]
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_step", interrupted)
        assert main(command) == 130
    said = capsys.readouterr().err
    assert "Stopped in epoch 2 of 3, step 1 of 2; the state is in" in said
    assert "type the same command again: diffclean train" in said
    assert main(command) == 0
    log = (tmp_path / "t.jsonl").read_text().splitlines()
    assert [json.loads(line).get("epoch") for line in log] == [None, 1, 2, 3, None]
    (tmp_path / "t.pt").unlink()
    (tmp_path / "t.resume").write_bytes(b"nonsense")
    assert main(command) == 1
    assert "--overwrite" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["-o", "t.onnx"], 2, ".pt or a .safetensors"),
        (["-o", "t.pt", "--arch", "resnet1"], 2, "no architecture 'resnet1'"),
        (["-o", "t.pt", "--device", "gpu0"], 2, "'gpu0' cannot be used"),
        (["-o", "t.pt", "--test", "nowhere"], 1, "nowhere"),
        (["-o", "t.pt", "--patience", "2"], 2, "--validation-share 0.1"),
        (["-o", "t.pt", "--precision", "fp16", "--arch", "wrn-16-1", "--device", "cpu"], 2, "fp16 needs a GPU"),
        (
            ["-o", "t.pt", "--learning-rate", "1e30", "--precision", "fp32", "--arch", "wrn-16-1", "--epochs", "3"],
            1,
            "smaller --learning-rate",
        ),
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
    assert not (tmp_path / "t.pt").exists()


@pytest.mark.usefixtures("tiny_archs")
def test_listed_images_get_new_labels(
    suspect_set: Path, fooled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The honest classifier ignores the trigger. The one with the backdoor confirms the attacker's labels."""
    listed, honest = tmp_path / "list.json", tmp_path / "honest.pt"
    listed.write_text(json.dumps(sorted(TRIGGERED)))
    model = checkpoints.load(fooled)
    with torch.no_grad():
        model.model.get_parameter("net.scale").fill_(50)  # the colours now weigh more than the trigger
    checkpoints.save(honest, model.model, model.arch, model.class_to_idx, model.size, {})
    command = ["train", str(suspect_set), *QUICK, "--arch", "tiny", "--overwrite", "-o", str(tmp_path / "t.pt")]
    assert main([*command, "--without", str(listed), "--relabel", str(honest)]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == [
        "20 of 20 listed images have a new label: green 20.",
        f"{honest} agrees with 100% of the labels of images that are not on the list.",
    ]
    assert main([*command, "--without", str(listed), "--relabel", str(fooled), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["relabelled"]
    assert (told["labels"], told["confirmed"], told["unsure"]) == ({}, 20, 0)
    assert main([*command, "--without", str(listed), "--relabel", str(fooled)]) == 0
    said = f"20 have a label that {fooled} confirms, and are left out (--keep-confirmed keeps them)."
    assert said in capsys.readouterr().out
    assert main([*command, "--relabel", str(honest)]) == 2
    assert (
        "--relabel needs a list of the images that get new labels: --without suspects.json" in capsys.readouterr().err
    )
    (suspect_set / "red").rename(suspect_set / "purple")
    assert main([*command, "--without", str(listed), "--relabel", str(honest), "--dry-run"]) == 2
    assert "purple; only the classifier knows red" in capsys.readouterr().err
