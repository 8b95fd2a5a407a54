"""A verb that is killed between a temporary file and its name leaves nothing, once the same command was run again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffclean.cli.main import main

KILLED = """
import os, pathlib, signal, sys
def killed_at(name):
    whole = getattr(pathlib.Path, name)
    def replaced(self, *others):
        if any(str(path).startswith(sys.argv[1]) and str(path).endswith(".part") for path in (self, *others)):
            os.kill(os.getpid(), signal.SIGKILL)
        return whole(self, *others)
    setattr(pathlib.Path, name, replaced)
for name in ("replace", "rename", "hardlink_to"):
    killed_at(name)
from diffclean.cli.main import main
main(sys.argv[2:])
"""


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name in ("ant", "bee"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(6):
            pixels = rng.integers(0, 256, (16, 16, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{number}.png")
    return tmp_path / "photos"


def killed_then_run(folder: Path, *command: str) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(folder), *command], capture_output=True, check=False)
    assert done.returncode == -9, done.stderr
    assert temporaries(folder) != []
    assert main(list(command)) == 0
    assert temporaries(folder) == []


def temporaries(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if ".part" in path.name]


def test_poison_leaves_no_litter(photos: Path, tmp_path: Path) -> None:
    killed_then_run(
        tmp_path,
        "poison",
        str(photos),
        "--attack",
        "badnets",
        "--rate",
        "0.2",
        "--target",
        "ant",
        "-o",
        str(tmp_path / "p"),
    )


@pytest.mark.slow
@pytest.mark.parametrize("shard", [[], ["--shard", "1/2"]])
def test_variate_leaves_no_litter(photos: Path, tmp_path: Path, tiny_model: Path, shard: list[str]) -> None:
    variate = ["variate", str(photos), "-o", str(tmp_path / "v"), "--engine", str(tiny_model), "--runtime", "torch"]
    killed_then_run(tmp_path, *variate, *shard)


@pytest.mark.slow
def test_merge_leaves_no_litter(photos: Path, tmp_path: Path, tiny_model: Path) -> None:
    variate = ["variate", str(photos), "-o", str(tmp_path / "v"), "--engine", str(tiny_model), "--runtime", "torch"]
    assert main([*variate, "--shard", "1/2"]) == main([*variate, "--shard", "2/2"]) == 0
    killed_then_run(tmp_path, "merge", str(tmp_path / "v"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["t.pt", "t.safetensors"])
def test_train_leaves_no_litter(photos: Path, tmp_path: Path, name: str) -> None:
    train = ["train", str(photos), "-o", str(tmp_path / name), "--arch", "resnet8-cifar", "--epochs", "1"]
    killed_then_run(tmp_path, *train, "--device", "cpu")
