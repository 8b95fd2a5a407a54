"""The door to data sets, and what the folder behind it owes as source and as sink."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from in_memory import MemorySource

from diffclean.data.atomic import WriteError
from diffclean.data.item import ReadError
from diffclean.data.registry import FORMATS, format_of, open_sink, open_source
from diffclean.data.shard import Shard
from diffclean.data.sources import Description
from diffclean.errors import DiffcleanError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("cat/a.png", "cat/sub/b.jpg", "cat-2/c.png", "d.png"):
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).write_bytes(name.encode())
    return tmp_path / "data"


def test_a_source_is_opened_again_from_its_description(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Elsewhere: from another folder, and after a journey as JSON."""
    monkeypatch.chdir(folder.parent)
    source = open_source("data", byte_limit=9)
    description, items = source.describe(), source.items()
    assert description is not None
    monkeypatch.chdir("/")
    again = open_source(Description(**json.loads(json.dumps(asdict(description)))))
    assert list(again.stream()) == items
    assert [item.key for item in again.items() if item.problem] == ["cat-2/c.png", "cat/sub/b.jpg"]


def test_a_stream_is_sorted_and_a_folder_is_one_part(folder: Path) -> None:
    source = open_source(folder)
    assert source.parts() == ("",)
    keys = [item.key for part in source.parts() for item in source.stream(part)]
    assert keys == sorted(keys) == ["cat-2/c.png", "cat/a.png", "cat/sub/b.jpg", "d.png"]


def test_a_stamp_changes_with_size_and_date(folder: Path) -> None:
    path = folder / "d.png"
    stamps = [open_source(folder).items()[-1].stamp]
    os.utime(path, ns=(1, 1))
    stamps.append(open_source(folder).items()[-1].stamp)
    path.write_bytes(b"longer than it was")
    os.utime(path, ns=(1, 1))
    stamps.append(open_source(folder).items()[-1].stamp)
    assert len({*stamps, ""}) == 4
    assert open_source(folder).items()[-1].stamp == stamps[-1]


def test_a_format_is_one_module_and_one_line(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    module: Any = ModuleType("toy_format")
    module.reads = lambda where: where.endswith(".toy")
    module.open_source = lambda where, **options: MemorySource({"": {where: b"1"}})
    monkeypatch.setitem(sys.modules, "toy_format", module)
    monkeypatch.setattr("diffclean.data.registry.FORMATS", {"toy": "toy_format", **FORMATS})
    assert [format_of("x.toy"), format_of(str(folder))] == ["toy", "folder"]
    assert [item.key for item in open_source("x.toy").items()] == ["x.toy"]
    assert len(open_source(folder).items()) == 4


def test_a_sink_holds_what_it_wrote_and_nothing_else(tmp_path: Path) -> None:
    sink = open_sink(tmp_path / "out").for_shard(Shard())
    sink.write("cat/a.png", b"four")
    sink.sync()
    assert (sink.size("cat/a.png"), sink.read("cat/a.png")) == (4, b"four")
    (tmp_path / "out/cat/folder.png").mkdir()
    (tmp_path / "out/cat/link.png").symlink_to("a.png")
    assert [sink.size(f"cat/{name}.png") for name in ("b", "folder", "link")] == [None] * 3
    with pytest.raises(ReadError):
        sink.read("cat/link.png")
    sink.remove("cat/a.png")
    sink.remove("cat/a.png")
    assert sink.size("cat/a.png") is None


def test_a_sink_neither_sees_nor_removes_what_lies_outside(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/a.png").write_bytes(b"precious")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/cat").symlink_to("../outside")
    sink = open_sink(tmp_path / "out")
    assert sink.size("cat/a.png") is None
    for forbidden in (sink.remove, sink.read):
        with pytest.raises(WriteError, match="leads out"):
            forbidden("cat/a.png")
    with pytest.raises(DiffcleanError, match="Not a key"):
        sink.remove("../outside/a.png")
    assert (tmp_path / "outside/a.png").read_bytes() == b"precious"


def test_another_process_writes_to_the_same_sink_by_its_description(tmp_path: Path) -> None:
    description = open_sink(tmp_path / "out").for_shard(Shard(2, 3)).describe()
    assert description is not None
    open_sink(description).write("a.png", b"1")
    assert open_sink(tmp_path / "out").size("a.png") == 1
    assert description.options == {"owner": "2-of-3"}
