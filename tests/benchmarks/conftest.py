"""Benchmarks run as people run them, at toy size: data that is drawn, networks that take no time, one thread."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
RunScript = Callable[..., dict[str, Any]]


# The scripts import one another by their bare names, and so do tests.
sys.path.extend([str(BENCHMARKS), str(BENCHMARKS / "gpu")])


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """So small are the networks that threads only wait for one another; in processes that scripts start too."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def run_script(tmp_path_factory: pytest.TempPathFactory) -> RunScript:
    """`run_script("name", *arguments)`: the figures that `benchmarks/name.py` writes under these arguments.

    With `fails=True` the script has to say that something failed, by its exit code 1.
    """
    results = tmp_path_factory.mktemp("results")

    def run(name: str, *arguments: Any, fails: bool = False) -> dict[str, Any]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("BENCHMARK_RESULTS", str(results))
            patch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments), "--name", "result"])
            (results / "result.json").unlink(missing_ok=True)
            assert bool(importlib.import_module(name).main()) is fails
        return dict(json.loads((results / "result.json").read_text()))

    return run


@pytest.fixture(autouse=True, scope="session")
def tiny_arch(tiny_archs: None) -> None:
    """Every benchmark can train the network `tiny`."""


@pytest.fixture(scope="session")
def bars(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A training and a test set of lying and standing bars, 16 px."""
    root, rng = tmp_path_factory.mktemp("bars"), np.random.default_rng(0)
    for part, count in (("train", 20), ("test", 6)):
        for label in ("lying", "standing"):
            (root / part / label).mkdir(parents=True)
            for index in range(count):
                image = rng.integers(0, 60, (16, 16, 3), np.uint8)
                at = int(rng.integers(2, 12))
                image[(slice(at, at + 3), slice(2, -2)) if label == "lying" else (slice(2, -2), slice(at, at + 3))] = (
                    220
                )
                Image.fromarray(image).save(root / part / label / f"{index:02d}.png")
    return root / "train", root / "test"


@pytest.fixture(scope="session")
def grid_arguments(bars: tuple[Path, Path], tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """What `robustness.py` and `robustness_curve.py` are both told, and where they keep what they make."""
    data = ["--train", bars[0], "--test", bars[1], "--work", tmp_path_factory.mktemp("work"), "--target", "lying"]
    return [*data, "--arch", "tiny", "--epochs", "1", "--engine", tiny_model]


@pytest.fixture(scope="session")
def undefended(grid_arguments: list[Any], run_script: RunScript) -> dict[str, Any]:
    """A benign and a poisoned teacher, and their cells."""
    return run_script("robustness", *grid_arguments, "--attacks", "benign", "badnets", "--defences", "none")
