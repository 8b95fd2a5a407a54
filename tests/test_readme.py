"""README.md shows what the benchmarks' result files say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

RENDER = Path(__file__).parents[1] / "benchmarks" / "render.py"


def test_its_tables_are_rendered_from_the_results() -> None:
    found = subprocess.run([sys.executable, str(RENDER), "--check"], capture_output=True, text=True, check=False)
    assert found.returncode == 0, f"README.md is stale: python benchmarks/render.py {found.stderr}"
