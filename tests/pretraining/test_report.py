"""What a pretraining run draws."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

import pytest
from PIL import Image

from diffclean.pretraining.report import draw_loss


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "log.jsonl").write_text(json.dumps({"step": 1, "loss": 0.5, "validation_loss": 0.6}) + "\n")
    return tmp_path


def test_the_loss_is_drawn(out: Path) -> None:
    draw_loss(out)
    with Image.open(out / "loss.png") as picture:
        assert picture.format == "PNG"


def test_without_matplotlib_it_is_said_what_to_type(
    out: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with caplog.at_level(logging.INFO):
        draw_loss(out)
    assert "pip install 'diffclean[plot]'" in caplog.text
    assert not (out / "loss.png").exists()
