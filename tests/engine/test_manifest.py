from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from diffclean.data.hashes import damage, hashes_below, sha256_of
from diffclean.engine.manifest import ComponentEntry, EngineManifest, model_hashes, read_engine_manifest
from diffclean.errors import DiffcleanError
from diffclean.families.base import Port

ENTRY = ComponentEntry(
    (Port("sample", "float32", (3, 16, 16)),),
    (Port("pixels", "uint8", (16, 16, 3)), Port("finite", "bool", ())),
    {"max_relative": 0.0},
)
MANIFEST = EngineManifest(
    "micro",
    {"path": "somewhere", "files": {"a": "b"}},
    16,
    {"beta": [1, 2]},
    {"vae_decoder": ENTRY},
    {"x": "y"},
    {"torch": "2"},
)


def test_round_trip(tmp_path: Path) -> None:
    MANIFEST.write(tmp_path)
    assert read_engine_manifest(tmp_path) == MANIFEST
    assert [path.name for path in tmp_path.iterdir()] == ["engine.json"]


@pytest.mark.parametrize(
    "other",
    [
        replace(MANIFEST, family="other"),
        replace(MANIFEST, source={"path": "somewhere", "files": {"a": "c"}}),
        replace(MANIFEST, image_size=32),
        replace(MANIFEST, scheduler={"beta": [1, 3]}),
        replace(MANIFEST, components={"vae_decoder": replace(ENTRY, inputs=(Port("sample", "float16", (3, 16, 16)),))}),
        replace(MANIFEST, files={"x": "z"}),
        replace(MANIFEST, tools={"torch": "3"}),
    ],
)
def test_the_fingerprint_covers_what_decides_the_output(other: EngineManifest) -> None:
    assert other.fingerprint != MANIFEST.fingerprint


@pytest.mark.parametrize(
    "other",
    [
        replace(MANIFEST, source={"path": "elsewhere", "files": {"a": "b"}}),
        replace(MANIFEST, components={"vae_decoder": replace(ENTRY, parity={"max_relative": 1e-6})}),
    ],
)
def test_the_fingerprint_leaves_out_place_and_measurement(other: EngineManifest) -> None:
    assert other.fingerprint == MANIFEST.fingerprint


def test_the_fingerprint_leaves_the_manifest_alone() -> None:
    before = json.dumps(MANIFEST.source)
    assert MANIFEST.fingerprint == MANIFEST.fingerprint
    assert json.dumps(MANIFEST.source) == before


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ('"image_size": 16', '"image_size": 17', "fingerprint does not match"),
        ('"x": "y"', '"x": "z"', "fingerprint does not match"),
        ('"format": 2', '"format": 1', "has format 1"),
        ('"family": "micro",', "", "is damaged"),
        ('"components": {', '"components": [], "c": {', "is damaged"),
        ('"fingerprint"', '"footprint"', "is damaged"),
        ('"image_size"', "{", "is damaged"),
    ],
)
def test_a_changed_manifest_is_refused(tmp_path: Path, before: str, after: str, said: str) -> None:
    MANIFEST.write(tmp_path)
    path = tmp_path / "engine.json"
    assert before in path.read_text()
    path.write_text(path.read_text().replace(before, after))
    with pytest.raises(DiffcleanError, match=said):
        read_engine_manifest(tmp_path)


@pytest.mark.parametrize("data", [b"", b"[]", b"\xff\xfe", b"null"])
def test_garbage_in_place_of_a_manifest(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "engine.json").write_bytes(data)
    with pytest.raises(DiffcleanError, match="is damaged"):
        read_engine_manifest(tmp_path)


def test_no_manifest(tmp_path: Path) -> None:
    with pytest.raises(DiffcleanError, match="not an engine directory"):
        read_engine_manifest(tmp_path)


def test_damage_is_told_a_line_a_file(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for name in ("same", "sub/changed", "gone"):
        (tmp_path / name).write_text(name)
    files = hashes_below(tmp_path)
    assert list(files) == ["gone", "same", "sub/changed"]
    assert damage(tmp_path, files) == []
    (tmp_path / "sub/changed").write_text("other")
    (tmp_path / "gone").unlink()
    now = sha256_of(tmp_path / "sub/changed")
    found = damage(tmp_path, files)
    assert found[0] == "gone is missing"
    assert found[1].startswith(f"sub/changed has sha256 {now[:12]}")
    assert len(found) == 2


def test_a_models_card_does_not_decide_its_output(tmp_path: Path) -> None:
    (tmp_path / "unet").mkdir()
    for name in ("README.md", "sample.png", "SHA256SUMS.json", "unet/config.json", "unet/weights.safetensors"):
        (tmp_path / name).write_text(name)
    assert list(model_hashes(tmp_path)) == ["unet/config.json", "unet/weights.safetensors"]
