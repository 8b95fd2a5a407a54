"""Two processes on the CPU (gloo), started as a user starts them."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from diffclean.cli.main import main
from diffclean.errors import UsageError
from diffclean.training.distributed import World
from diffclean.training.trainer import shared_batch

Sets = tuple[Path, Path]
PROGRAM = str(Path(__file__).with_name("two_processes.py"))
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", PROGRAM]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "TORCH_CPP_LOG_LEVEL": "ERROR"}


def arguments(shapes: Sets, out: Path, arch: str = "small") -> list[str]:
    words = f"train {shapes[0]} -o {out} --test {shapes[1]} --arch {arch} --epochs 3 --batch-size 32 --ema 0.9"
    words += " --validation-share 0.24 --precision fp32 --device cpu --json -q"
    return words.split()


def started(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=300, check=False)


def epochs_of(path: Path) -> list[dict[str, float]]:
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    return [entry for entry in entries if "epoch" in entry]


@pytest.mark.slow
def test_two_processes_do_what_one_does(shapes: Sets, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments(shapes, tmp_path / "one.pt", "plain")) == 0  # the same network, in this process
    one = json.loads(capsys.readouterr().out)
    two = started([*TORCHRUN, *arguments(shapes, tmp_path / "two.pt")])
    assert two.returncode == 0, two.stderr
    told = json.loads(two.stdout)  # one JSON object: only the first process talks
    assert told["metrics"] == pytest.approx(one["metrics"], abs=1e-4)
    alone, together = epochs_of(tmp_path / "one.jsonl"), epochs_of(tmp_path / "two.jsonl")
    assert len(alone) == len(together) == 3
    for entry, other in zip(alone, together, strict=True):
        for name in ("loss", "accuracy", "validation_loss", "validation_accuracy"):
            assert other[name] == pytest.approx(entry[name], abs=1e-4), name
        assert other["validation_images"] == entry["validation_images"]
    assert alone[0]["validation_images"] % 2 == 1, "an odd number, which two processes cannot halve"
    weights = [torch.load(tmp_path / f"{name}.pt", weights_only=True)["state_dict"] for name in ("one", "two")]
    assert all(torch.allclose(weights[0][name], weights[1][name], atol=1e-4) for name in weights[0])
    assert {path.suffix for path in tmp_path.iterdir()} == {".pt", ".jsonl", ".tensorboard"}


@pytest.mark.slow
def test_two_processes_give_suspects_the_same_new_labels(shapes: Sets, tmp_path: Path) -> None:
    """Each asks the classifier about its part of the list, and both leave the same images out."""
    listed = tmp_path / "list.json"
    listed.write_text(json.dumps([f"{name}/{number:03d}.png" for name in ("lying", "square") for number in range(5)]))
    model = tmp_path / "model.pt"
    run = started([sys.executable, PROGRAM, *arguments(shapes, model)])
    assert run.returncode == 0, run.stderr
    relabel = ["--without", str(listed), "--relabel", str(model), "--relabel-confidence", "0.35"]
    found = []
    for name, program in (("one", [sys.executable, PROGRAM]), ("two", [*TORCHRUN])):
        run = started([*program, *arguments(shapes, tmp_path / f"{name}.pt"), *relabel])
        assert run.returncode == 0, run.stderr
        found.append(json.loads(run.stdout)["relabelled"])
    assert found[0] == found[1]
    assert found[0]["images"] == 10


def test_shares_of_a_batch_cover_it_once() -> None:
    chosen = torch.arange(11)
    parts = [World(torch.device("cpu"), rank, 3).part(chosen).tolist() for rank in range(3)]
    assert [image for part in parts for image in part] == list(range(11))
    assert {len(part) for part in parts} == {3, 4}


def test_a_batch_that_cannot_be_shared() -> None:
    assert shared_batch(128, 1000, 4) == 128
    assert shared_batch(128, 90, 4) == 88
    with pytest.raises(UsageError, match=r"(?s)127 images cannot be shared by 4.*`batch_size` 128"):
        shared_batch(127, 1000, 4)
    with pytest.raises(UsageError, match="too few for 1 process"):
        shared_batch(128, 1, 1)


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "number"), [(1, signal.SIGKILL), (1, signal.SIGTERM), (2, signal.SIGTERM)])
def test_a_command_that_was_killed_goes_on(
    processes: int, number: signal.Signals, shapes: Sets, tmp_path: Path
) -> None:
    program = TORCHRUN if processes == 2 else [sys.executable, PROGRAM]
    whole = [*arguments(shapes, tmp_path / "whole.pt"), "--epochs", "80"]
    cut = [*arguments(shapes, tmp_path / "cut.pt"), "--epochs", "80", "--save-every-s", "0"]
    process = subprocess.Popen([*program, *cut], env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (tmp_path / "cut.resume").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(number)
    process.wait(60)
    assert not (tmp_path / "cut.pt").exists()
    for words in (cut, whole):
        run = started([*program, *words])
        assert run.returncode == 0, run.stderr
    expected, found = (
        torch.load(tmp_path / f"{name}.pt", weights_only=True)["state_dict"] for name in ("whole", "cut")
    )
    assert all(torch.equal(expected[name], found[name]) for name in expected)
