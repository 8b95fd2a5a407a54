"""The job that most tests of `clean` carry out: small images, a tiny network and engine, one epoch."""

from __future__ import annotations

from pathlib import Path

import pytest

from diffclean.workflow.clean_config import CleanConfig


@pytest.fixture
def config(shapes: tuple[Path, Path], tiny_archs: None, tiny_model: Path, tmp_path: Path) -> CleanConfig:
    return CleanConfig(
        data=shapes[0],
        out=tmp_path / "job",
        test=shapes[1],
        arch="tiny",
        epochs=1,
        engine=str(tiny_model),
        variations=1,
        detector="spectral",
        self_test=False,
        flip="random",
    )
