from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import render
from shapes import draw

RunScript = Callable[..., dict[str, Any]]


@pytest.mark.slow
def test_timms_loop_trains_the_network_and_its_table_says_how(tmp_path: Path, run_script: RunScript) -> None:
    train, test = draw(tmp_path / "train", 20, 0, side=32), draw(tmp_path / "test", 8, 1, side=32)
    result = run_script("timm_loop", "--train", train, "--test", test, "--epochs", 8, "--batch", 10)
    figures = result["figures"]
    assert (figures["arch"], figures["images"], figures["test_images"]) == ("airnet", 60, 24)
    assert figures["test_accuracy"] > 0.7, "bars and squares can be learned"
    page = render.timm_loop(result)
    assert "SGD with a rate of 0.004" in page
    assert f"| airnet | 60 | 8 | {100 * figures['test_accuracy']:.1f} (" in page
