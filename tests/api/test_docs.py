"""docs/python.md: its code runs as it stands, and it names everything that is offered."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from shapes import draw

import diffclean as dc

PAGE = (Path(__file__).parents[2] / "docs/python.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.slow
def test_the_code_runs_in_its_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pandas")
    monkeypatch.chdir(tmp_path)
    draw(tmp_path / "clean", 24, 0, side=32)
    draw(tmp_path / "test", 8, 1, side=32)
    names: dict[str, Any] = {}
    for block in BLOCKS:
        exec(compile(block, "docs/python.md", "exec"), names)
    assert capsys.readouterr().out.rstrip().splitlines()[-1].startswith("t.pt exists.")
    assert names["variations"].made == len(names["attempts"]) == len(names["scores"]) == 72
    assert len(names["epochs"]) == 3
    measured = {"clean_accuracy", "attack_success_rate", "robust_accuracy", "benign_landing"}
    assert set(names["rates"]["measure"]) == measured
    assert names["variation"].size == (32, 32)


def test_the_page_names_everything_that_is_offered() -> None:
    assert [name for name in dc.__all__ if f"dc.{name}" not in PAGE] == ["__version__"]
