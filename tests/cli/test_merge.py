"""`diffclean merge` as it is typed. What it joins is in data/test_merge and variation/test_variate."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from diffclean.cli.main import main
from diffclean.data.manifest import read_run_manifest
from diffclean.errors import ExitCode

Capture = pytest.CaptureFixture[str]
KEYS = [f"{label}/{index}.png" for label in ("cat", "dog") for index in range(5)]


def test_shards_are_joined(
    tmp_path: Path, tiny_model: Path, tiny_engine: Path, draw_photos: Callable[..., Path], capsys: Capture
) -> None:
    source, out = draw_photos(tmp_path / "data", KEYS), tmp_path / "out"
    options = ["--engine", str(tiny_model), "--runtime", "onnxruntime", "--steps", "1", "--batch", "4"]
    command = ["variate", str(source), "-o", str(out), *options]
    assert main([*command, "--shard", "2/3"]) == ExitCode.DONE
    assert main([*command, "--shard", "1/3"]) == ExitCode.DONE
    assert main(["merge", str(out)]) == ExitCode.CANNOT
    assert "shard 3-of-3 is missing" in capsys.readouterr().err
    assert main([*command, "--shard", "3/3"]) == ExitCode.DONE
    capsys.readouterr()
    assert main(["merge", str(out)]) == ExitCode.DONE
    assert capsys.readouterr().out == f"The shards are joined; the manifest is {out / 'manifest.parquet'}.\n"
    assert [row.key for row in read_run_manifest(out / "manifest.parquet")] == sorted(KEYS)
    assert main(["merge", "--json", str(out), str(out)]) == ExitCode.DONE
    assert json.loads(capsys.readouterr().out) == {"manifest": str(out / "manifest.parquet")}
    assert main([*command, "--json"]) == ExitCode.DONE
    assert json.loads(capsys.readouterr().out)["kept"] == 10


def test_nothing_to_join(tmp_path: Path, capsys: Capture) -> None:
    assert main(["merge", str(tmp_path)]) == ExitCode.CANNOT
    assert "No finished shard" in capsys.readouterr().err
    assert main(["merge", str(tmp_path / "nowhere")]) == ExitCode.CANNOT
    assert main(["merge"]) == ExitCode.USAGE
