from __future__ import annotations

import json
from pathlib import Path

import pytest
import render


def test_a_result_that_is_not_there_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(render, "RESULTS", tmp_path)
    pages = render.PAGES["docs/performance.md"]
    assert render.rendered(pages) == ""
    machine = {"gpu": "H100, compute capability 9.0", "cores": 16, "processor": "a CPU"}
    figures = {
        "device": "cuda",
        **{"arch": "resnet18", "batch": 128, "precision": "bf16", "images": 50000},
        "median": {"on line": 3000.0, "timm": 2000.0},
        "over_timm": {"on line": 1.5, "timm": 1.0},
    }
    content = {"data": "images", "machine": machine, "figures": figures}
    (tmp_path / "distill_speed.json").write_text(json.dumps(content))
    page = render.rendered(pages)
    assert "on a CUDA** (images; 50,000 images" in page
    assert "H100, compute capability 9.0; 16 cores of a CPU" in page
    assert "| on line | 3000 | 1.50x |" in page
