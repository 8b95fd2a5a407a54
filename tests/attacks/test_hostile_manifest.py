"""Manifests that came from anywhere: equal rows, wrong types, names that steer a terminal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from diffclean.attacks.manifest import MANIFEST_FILE, read_poison_manifest
from diffclean.attacks.poison import poison
from diffclean.data import manifest as rows
from diffclean.errors import DiffcleanError


@pytest.fixture
def written(tmp_path: Path) -> Path:
    for name in ("cat", "dog"):
        (tmp_path / "clean" / name).mkdir(parents=True)
        for number in range(10):
            Image.new("RGB", (16, 16), (number * 20, 0, 0)).save(tmp_path / "clean" / name / f"{number}.png")
    poison(tmp_path / "clean", tmp_path / "out", "badnets", 0.1, "dog")
    return tmp_path / "out" / MANIFEST_FILE


def test_equal_rows_end_at_the_second(written: Path) -> None:
    content = json.loads(written.read_text())
    content["images"] = content["images"][:1] * 200_000
    written.write_text(json.dumps(content))
    with pytest.raises(DiffcleanError, match="two rows are of"):
        read_poison_manifest(written)


@pytest.mark.parametrize(
    "change",
    [
        {"images": {}},
        {"images": [5]},
        {"failed": []},
        {"versions": 5},
        {"parameters": []},
        {"target": 5},
        {"class_to_idx": {"dog": 10**30}},
        {"seed": [1]},
        {"attack": ["badnets"]},
        {"rate": "a tenth"},
        {"rate": -1},
        {"rate": True},
        {"rate": 10**400},
        {"cover_rate": None},
        {"poison_target_class": "yes"},
        {"failed": {"cat/1.png": 5}},
        {"labels": ["all-to-one"]},
        {"form": None},
        {"images": [{}]},
    ],
)
def test_wrong_types_are_messages(change: dict[str, Any], written: Path) -> None:
    written.write_text(json.dumps({**json.loads(written.read_text()), **change}))
    with pytest.raises(DiffcleanError):
        read_poison_manifest(written)


@pytest.mark.parametrize(("name", "value"), [("poisoned", "yes"), ("key", 5), ("target", None), ("more", 1)])
def test_wrong_types_in_a_row_are_messages(name: str, value: Any, written: Path) -> None:
    content = json.loads(written.read_text())
    content["images"][0][name] = value
    written.write_text(json.dumps(content))
    with pytest.raises(DiffcleanError, match=rf"damaged.*{name}"):
        read_poison_manifest(written)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"format": NaN}', '{"format": "\\ud800"}'])
def test_json_that_is_none(text: str, written: Path) -> None:
    written.write_text(text)
    with pytest.raises(DiffcleanError, match="not a poison manifest"):
        read_poison_manifest(written)


def test_eight_million_equal_rows_in_a_small_parquet_file_are_not_built(tmp_path: Path) -> None:
    """Equal values are stored once: a few kilobytes say them eight million times."""
    path = rows.write_manifest(tmp_path, [rows.Row("a/1.png")], class_to_idx={"a": 0})
    one = pq.read_table(path)
    many = pa.Table.from_arrays(
        [
            pa.DictionaryArray.from_arrays(pa.array([0] * 800_000, pa.int32()), column.combine_chunks()).cast(
                column.type
            )
            for column in one.columns
        ],
        schema=one.schema,
    )
    with pq.ParquetWriter(path, many.schema, compression="zstd") as writer:
        for _ in range(10):
            writer.write_table(many)
    assert path.stat().st_size < 2**20
    with pytest.raises(DiffcleanError, match="cannot hold 8,000,000 images"):
        rows.read_run_manifest(path)
