"""`variate` from and to places that are no folders: it knows what the Protocols say, and no format."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from threading import Event

import pyarrow.parquet as pq
import pytest
from in_memory import MemorySink, MemorySource, digests

from diffclean.data.shard import Shard
from diffclean.errors import Interrupted
from diffclean.variation.settings import Settings
from diffclean.variation.variate import Concurrency, variate

KEYS = ["cat/a.png", "cat/b.png", "dog/c.png", "dog/d.png", "eel/e.png"]
Draw = Callable[..., Path]


@pytest.fixture
def settings(tiny_model: Path, tiny_engine: Path) -> Settings:
    return Settings(engine=str(tiny_model), runtime="onnxruntime", steps=1, batch=2)


@pytest.fixture
def folder(tmp_path: Path, draw_photos: Draw) -> Path:
    return draw_photos(tmp_path / "source", KEYS)


@pytest.fixture
def parts(folder: Path) -> dict[str, dict[str, bytes]]:
    """The same images in two parts."""
    data = {key: (folder / key).read_bytes() for key in KEYS}
    return {"1": {key: data[key] for key in KEYS[:3]}, "2": {key: data[key] for key in KEYS[3:]}}


def in_folder(out: Path) -> dict[str, bytes]:
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*.png")}


@pytest.mark.parametrize("processes", [1, 4, None])
def test_the_bytes_are_those_of_a_folder(
    settings: Settings, folder: Path, parts: dict[str, dict[str, bytes]], tmp_path: Path, processes: int | None
) -> None:
    """Whatever was asked for: what lives in this process alone is done in it."""
    source, sink = MemorySource(parts), MemorySink()
    report = variate(source, sink, settings, concurrency=Concurrency(processes, threads=1))
    whole = variate(folder, tmp_path / "out", settings, concurrency=Concurrency(threads=1))
    assert (report.made, report.where) == (5, "memory")
    assert digests(sink.images) == digests(in_folder(whole.out))
    assert sink.synced == set(sink.images)
    manifest = pq.read_table(io.BytesIO(sink.records.files["manifest.parquet"]))
    assert manifest.equals(pq.read_table(whole.out / "manifest.parquet"))
    assert json.loads(sink.records.files["run.json"])["class_to_idx"] == {"cat": 0, "dog": 1, "eel": 2}
    assert source.listed == 2  # each part once


def test_it_is_resumed_and_brought_up_to_date(settings: Settings, parts: dict[str, dict[str, bytes]]) -> None:
    source, sink, stop = MemorySource(parts), MemorySink(), Event()
    stop.set()
    with pytest.raises(Interrupted, match="0 of 5 variations are in memory"):
        variate(source, sink, settings, stop=stop)
    variate(source, sink, settings)
    before = dict(sink.images)
    parts["1"]["cat/a.png"] = parts["2"].pop("eel/e.png")
    del sink.images["dog/d_v00.png"]
    report = variate(source, sink, settings)
    assert (report.total, report.made, report.kept) == (4, 2, 2)
    assert set(sink.images) == {"cat/a_v00.png", "cat/b_v00.png", "dog/c_v00.png", "dog/d_v00.png"}
    assert {key for key in sink.images if sink.images[key] != before[key]} == {"cat/a_v00.png"}
    assert len(report.changes) == 5
    assert variate(source, sink, settings, verify=True).kept == 4


def test_a_shard_takes_its_images_from_every_part(settings: Settings, parts: dict[str, dict[str, bytes]]) -> None:
    sink = MemorySink()
    reports = [variate(MemorySource(parts), sink, settings, shard=Shard(index, 2)) for index in (1, 2)]
    assert sum(report.made for report in reports) == len(sink.images) == 5
    assert {"manifest-1-of-2.parquet", "manifest-2-of-2.parquet"} < set(sink.records.files)
