"""An `engine.json` that an attacker wrote, with a fingerprint that fits: a message, and nothing is loaded."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from diffclean.data.hashes import sha256_of
from diffclean.engine.manifest import EngineManifest, read_engine_manifest
from diffclean.errors import DiffcleanError
from diffclean.runtime.choose import open_engine


@pytest.fixture
def engine(tiny_engine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_engine, tmp_path / "engine"))


def rewritten(engine: Path, change: Callable[[EngineManifest], EngineManifest]) -> None:
    """With a fingerprint that is right."""
    change(read_engine_manifest(engine)).write(engine)


@pytest.mark.parametrize(
    "files",
    [{}, {"../../x": "0" * 64}, {"/etc/passwd": "0" * 64}, {"unet/../unet/model.onnx": "0" * 64}, {"a\\..\\b": "0"}],
)
def test_files_must_be_listed_and_inside(files: dict[str, str], engine: Path) -> None:
    rewritten(engine, lambda manifest: replace(manifest, files=files))
    with pytest.raises(DiffcleanError, match=r"not among its files|inside the folder"):
        open_engine(engine, "onnxruntime")


def test_every_graph_is_listed_and_hashed(engine: Path) -> None:
    rewritten(engine, lambda m: replace(m, files={k: v for k, v in m.files.items() if "vae_decoder" not in k}))
    with pytest.raises(DiffcleanError, match=r"vae_decoder/model\.onnx is not among its files"):
        open_engine(engine, "onnxruntime")


@pytest.mark.parametrize("location", ["weights.bin", "../../weights.bin", "/tmp/weights.bin"])
def test_weights_beside_a_graph_are_listed_too(location: str, engine: Path) -> None:
    import onnx
    from onnx.external_data_helper import set_external_data

    path = engine / "unet" / "model.onnx"
    model = onnx.load(path)
    tensor = max(model.graph.initializer, key=lambda each: len(each.raw_data))
    (engine / "unet" / "weights.bin").write_bytes(tensor.raw_data)
    set_external_data(tensor, location)
    tensor.ClearField("raw_data")
    path.write_bytes(model.SerializeToString())
    rewritten(engine, lambda m: replace(m, files={**m.files, "unet/model.onnx": sha256_of(path)}))
    with pytest.raises(DiffcleanError, match=r"wants unet/.*weights\.bin, which is not among its files"):
        open_engine(engine, "onnxruntime")


@pytest.mark.parametrize(
    "change",
    [
        {"image_size": "16"},
        {"image_size": 10**30},
        {"image_size": -1},
        {"image_size": True},
        {"family": ["micro"]},
        {"files": []},
        {"files": {"unet/model.onnx": 5}},
        {"scheduler": 5},
        {"components": []},
        {"components": {"../x": {"inputs": [], "outputs": [], "parity": {}}}},
        {"components": {"unet": 5}},
        {"components": {"unet": {"inputs": 5, "outputs": [], "parity": {}}}},
        {"components": {"unet": {"inputs": [{"name": "x", "dtype": "float32", "shape": [10**30]}], "outputs": [],
                                 "parity": {}}}},
        {"components": {"unet": {"inputs": [{"name": "x", "dtype": "float32", "shape": "x"}], "outputs": [],
                                 "parity": {}}}},
        {"compiled": 5},
        {"compiled": [{"component": "unet", "target": "openvino", "files": {"../x": "0"}, "key": {}}]},
        {"options": {"precision": "fp4"}},
        {"options": {"weights": "int3"}},
        {"options": 5},
        {"source": []},
        {"source": {"path": 5}},
        {"source": {"files": {"../../etc/passwd": "0"}}},
        {"format": [2]},
        {"unknown": 1},
    ],
)  # fmt: skip
def test_wrong_types_are_messages(change: dict[str, Any], engine: Path) -> None:
    path = engine / "engine.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(DiffcleanError, match=r"engine\.json"):
        open_engine(engine, "onnxruntime")


@pytest.mark.parametrize("text", ["[" * 100_000, '{"format": Infinity}', '{"format": "\\ud800"}', "[]", "5", "null"])
def test_json_that_is_none(text: str, engine: Path) -> None:
    (engine / "engine.json").write_text(text)
    with pytest.raises(DiffcleanError, match=r"engine\.json"):
        open_engine(engine, "onnxruntime")


def test_a_pipe_in_place_of_the_file_is_not_waited_for(engine: Path) -> None:
    (engine / "engine.json").unlink()
    os.mkfifo(engine / "engine.json")
    with pytest.raises(DiffcleanError, match="not an engine directory"):
        read_engine_manifest(engine)
