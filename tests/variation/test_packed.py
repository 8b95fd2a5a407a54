"""`variate` from and to shards: they are divided as the source is, and a killed run ends in the same bytes."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from data_sets import content, files_below, picture, shards, tar

from diffclean.data import division
from diffclean.data.atomic import WriteError
from diffclean.data.manifest import read_run_manifest
from diffclean.data.merge import merge_manifests
from diffclean.data.outputs import outputs_of
from diffclean.data.packed_sink import INDEX, SPOOL
from diffclean.data.registry import open_source
from diffclean.data.shard import Shard
from diffclean.errors import DiffcleanError, Interrupted, UsageError
from diffclean.progress import NoProgress
from diffclean.variation import following
from diffclean.variation.settings import Settings
from diffclean.variation.variate import Concurrency, VariateResult, variate

Run = Callable[..., VariateResult]
INDEX_FILE = f"{INDEX}.jsonl"
RECORDS = ("run.json", "journal.jsonl", INDEX_FILE, ".diffclean.lock")
"""They name places or the order of the work, which may differ."""


class StopAfter:
    """An event that is set once it was asked so many times."""

    def __init__(self, asked: int) -> None:
        self.left = asked

    def is_set(self) -> bool:
        self.left -= 1
        return self.left < 0


@pytest.fixture
def run(tiny_model: Path, tiny_engine: Path) -> Run:
    settings = Settings(engine=str(tiny_model), runtime="onnxruntime", steps=1, batch=2, detail=16)

    def go(source: Path, out: Path, **options: Any) -> VariateResult:
        options.setdefault("concurrency", Concurrency(threads=1))
        return variate(source, out, settings, **options)

    return go


def digests(out: Path) -> dict[str, str]:
    """Of everything that has to be the same."""
    return {name: hashlib.sha256(data).hexdigest() for name, data in files_below(out, RECORDS).items()}


def test_shards_become_shards_of_the_same_names_with_what_lies_beside_images(run: Run, tmp_path: Path) -> None:
    source, out = shards(tmp_path / "in"), tmp_path / "out"
    report = run(source, out)
    assert (report.made, report.failed, report.classes) == (6, [], 3)
    assert sorted(path.name for path in out.iterdir() if path.name[0] != ".") == [
        "journal.jsonl",
        "manifest.parquet",
        "run.json",
        "x-000.tar",
        "x-001.tar",
    ]
    made = open_source(out)
    assert [(item.key, item.label) for item in made.items()][3] == ("x-001.tar/0003_v00", "0")
    assert made.about(made.items()[3]) == {"json": b'{"caption":  "number 3"}'}
    rows = {row.key: row.output_sha256 for row in read_run_manifest(out / "manifest.parquet")}
    assert rows["x-001.tar/0003"] == hashlib.sha256(made.read(made.items()[3])).hexdigest()
    assert json.loads((out / "run.json").read_text())["identity"]["to"] == "webdataset"
    assert not (out / SPOOL).exists()


def test_the_images_are_those_of_a_folder_of_the_same_names(run: Run, tmp_path: Path) -> None:
    source = shards(tmp_path / "in")
    run(source, tmp_path / "tars")
    run(source, tmp_path / "folder", to="folder")
    assert content(tmp_path / "tars") == content(tmp_path / "folder")
    assert (tmp_path / "folder" / "0" / "x-001_0003_v00.png").is_file()


@pytest.mark.parametrize("asked", [1, 3, 5])
def test_a_stopped_run_goes_on_to_the_same_bytes(run: Run, tmp_path: Path, asked: int) -> None:
    source = shards(tmp_path / "in")
    run(source, tmp_path / "whole")
    with pytest.raises(Interrupted):
        run(source, tmp_path / "out", stop=StopAfter(asked))
    whole = files_below(tmp_path / "whole")
    for name, data in files_below(tmp_path / "out").items():
        assert not name.endswith(".tar") or data == whole[name], "no shard appears before it is whole"
    run(source, tmp_path / "out")
    assert digests(tmp_path / "out") == digests(tmp_path / "whole")


def test_a_run_that_is_killed_while_it_packs_goes_on(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from diffclean.data.webdataset import Tars

    source = shards(tmp_path / "in", count=3)
    run(source, tmp_path / "whole")
    pack, packed = Tars.pack, []

    def killed(self: Tars, file: Any, *rest: Any) -> list[str]:
        packed.append(file)
        if len(packed) == 2:
            file.write(b"half")
            raise KeyboardInterrupt
        return pack(self, file, *rest)

    monkeypatch.setattr(Tars, "pack", killed)
    with pytest.raises(KeyboardInterrupt):
        run(source, tmp_path / "out")
    monkeypatch.undo()
    assert [path.name for path in (tmp_path / "out").glob("*.tar")] == ["x-000.tar"]
    report = run(source, tmp_path / "out")
    assert report.made + report.kept == 9
    assert report.kept >= 6, "what was recorded is not made again"
    assert digests(tmp_path / "out") == digests(tmp_path / "whole")


def test_a_shard_is_packed_while_the_next_ones_are_made(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that what waits for the packing is bounded, however many images there are."""
    source, out = shards(tmp_path / "in", count=4, each=4), tmp_path / "out"
    monkeypatch.setattr(following, "MOST_BEHIND", 0)
    seen: list[tuple[int, set[str], int]] = []

    class Watched(NoProgress):
        done = 0

        def advance(self, count: int = 1, **figures: float) -> None:
            waiting = [path for path in (out / SPOOL).rglob("*.png") if path.is_file()]
            seen.append((self.done, {path.stem for path in out.glob("*.tar")}, len(waiting)))
            self.done += count

    run(source, out, progress=Watched())
    assert seen
    for done, packed, waiting in seen:
        # A shard is packed as soon as the image after its last one is done, which may be in the same batch of two.
        assert packed >= {f"x-{number:03d}" for number in range((done - 1) // 4)}
        assert waiting <= 4 + 2 * 6, "one shard and what the pipeline has in its hands"


def test_an_error_of_the_packing_ends_the_run(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from diffclean.data.webdataset import Tars

    def full(*given: Any) -> list[str]:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Tars, "pack", full)
    with pytest.raises(WriteError, match="the disk is full"):
        run(shards(tmp_path / "in"), tmp_path / "out")


@pytest.mark.parametrize("killed_at", [0, 1, 2, 3])
def test_images_that_move_to_another_shard_end_as_in_a_fresh_run(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, draw_photos: Callable[..., Path], killed_at: int
) -> None:
    """The shards of a folder are divided by number, so one image less moves all others, also if a kill comes between.

    An image that was replaced must not come back from the old shard that still holds its old variation.
    """
    from diffclean.data.webdataset import Tars

    monkeypatch.setattr(division, "MOST_IMAGES", 3)
    source = draw_photos(tmp_path / "in", [f"cat/{number}.png" for number in range(8)])
    run(source, tmp_path / "out", to="webdataset")
    (source / "cat/0.png").unlink()
    (source / "cat/3.png").write_bytes(picture(99))
    (source / "cat/6.png").write_bytes(picture(98))
    pack, packed = Tars.pack, []

    def killed(self: Tars, file: Any, *rest: Any) -> list[str]:
        packed.append(file)
        if len(packed) == killed_at:
            raise KeyboardInterrupt
        return pack(self, file, *rest)

    monkeypatch.setattr(Tars, "pack", killed)
    if killed_at:
        with pytest.raises(KeyboardInterrupt):
            run(source, tmp_path / "out", to="webdataset")
    run(source, tmp_path / "out", to="webdataset")
    run(source, tmp_path / "anew", to="webdataset")
    assert digests(tmp_path / "out") == digests(tmp_path / "anew")
    assert content(tmp_path / "out") == content(tmp_path / "anew")


@pytest.mark.parametrize("format", ["webdataset", "parquet", "huggingface", "npz"])
def test_shards_of_a_run_write_files_of_their_own_which_merge_joins(run: Run, tmp_path: Path, format: str) -> None:
    source, out = shards(tmp_path / "in"), tmp_path / "out"
    run(source, tmp_path / "whole", to=format)
    for index in (2, 1):
        run(source, out, to=format, shard=Shard(index, 2))
    assert merge_manifests(out) == out / "manifest.parquet"
    assert content(out) == content(tmp_path / "whole")
    assert read_run_manifest(out / "manifest.parquet") == read_run_manifest(tmp_path / "whole/manifest.parquet")
    assert open_source(out).class_to_idx == open_source(tmp_path / "whole").class_to_idx
    _, places = outputs_of(out)
    assert places.keys() == {row.output for row in read_run_manifest(out / "manifest.parquet")}
    merge_manifests(out)
    report = run(source, out, to=format)
    assert (report.made, report.kept) == (0, 6)
    whole = digests(tmp_path / "whole")
    assert {name: digests(out).get(name) for name in whole} == whole, "now as one machine would have written it"
    assert content(out) == content(tmp_path / "whole")
    assert {path.suffix for path in out.rglob("*-of-*")} == {".parquet", ".jsonl", ".lock"}, "nothing is there twice"
    with pytest.raises(DiffcleanError, match="continued after an earlier merge"):
        merge_manifests(out)


def test_shards_in_several_folders_are_brought_together_and_checked(run: Run, tmp_path: Path) -> None:
    source = shards(tmp_path / "in")
    run(source, tmp_path / "whole")
    outs = [tmp_path / "one", tmp_path / "two"]
    for index, out in enumerate(outs, start=1):
        run(source, out, shard=Shard(index, 2))
    tars = sorted(path for out in outs for path in out.glob("*.tar"))
    for path in tars:
        original = path.read_bytes()
        changed = bytearray(original)
        changed[700] ^= 1
        path.write_bytes(changed)
        with pytest.raises(DiffcleanError, match="is not as it was written"):
            merge_manifests(outs)
        path.write_bytes(original[:-512])
        with pytest.raises(DiffcleanError, match="in no file"):
            merge_manifests(outs)
        path.write_bytes(original)
    (outs[0] / next(path.name for path in tars if path.parent == outs[1])).write_bytes(b"in the way")
    with pytest.raises(DiffcleanError, match="in the way"):
        merge_manifests(outs)
    (outs[0] / next(path.name for path in tars if path.parent == outs[1])).unlink()
    merge_manifests(outs)
    merge_manifests(outs)
    assert content(outs[0]) == content(tmp_path / "whole")
    assert run(source, outs[0]).kept == 6


def test_shards_of_other_classes_are_not_joined(run: Run, tmp_path: Path) -> None:
    source = shards(tmp_path / "in")
    run(source, tmp_path / "out", shard=Shard(1, 2))
    tar(tmp_path / "in/x-002.tar", [("0009.png", picture(9)), ("0009.cls", b"7")])
    pattern = tmp_path / "in/x-{000..002}.tar"
    run(pattern, tmp_path / "out", shard=Shard(2, 2))
    with pytest.raises(DiffcleanError, match="have different classes"):
        merge_manifests(tmp_path / "out")
    run(pattern, tmp_path / "out", shard=Shard(1, 2))
    merge_manifests(tmp_path / "out")
    assert len(content(tmp_path / "out")) == 7


@pytest.mark.slow
def test_a_run_that_is_killed_by_the_system_goes_on_to_the_same_bytes(
    run: Run, tmp_path: Path, tiny_model: Path
) -> None:
    source = shards(tmp_path / "in", each=20)
    run(source, tmp_path / "whole")
    command = ["variate", str(source), "-o", str(tmp_path / "out"), "--engine", str(tiny_model)]
    command += ["--runtime", "onnxruntime", "--steps", "1", "--batch", "2", "--detail", "16"]
    for wanted in (2, 10, 20, None):
        child = subprocess.Popen([sys.executable, "-m", "diffclean.cli.main", *command], stderr=subprocess.DEVNULL)
        journal = tmp_path / "out" / "journal.jsonl"
        deadline = time.monotonic() + 120
        while wanted is not None and child.poll() is None and time.monotonic() < deadline:
            if journal.exists() and journal.read_bytes().count(b"\n") >= wanted:
                child.send_signal(signal.SIGKILL)
                break
        child.wait(120)
    assert child.returncode == 0
    assert digests(tmp_path / "out") == digests(tmp_path / "whole")


def test_a_finished_run_does_nothing_and_a_changed_source_is_followed(run: Run, tmp_path: Path) -> None:
    source, out = shards(tmp_path / "in"), tmp_path / "out"
    run(source, out)
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("*.tar")}
    assert run(source, out).kept == 6
    assert {path.name: path.stat().st_mtime_ns for path in out.glob("*.tar")} == before
    # One image replaced, one gone, one with another label: the other shard is not touched.
    tar(
        tmp_path / "in" / "x-001.tar",
        [("0003.png", picture(33)), ("0003.cls", b"0"), ("0004.png", picture(4)), ("0004.cls", b"2")],
    )
    report = run(source, out)
    assert (report.total, report.made, report.kept) == (5, 2, 3)
    assert (out / "x-000.tar").stat().st_mtime_ns == before["x-000.tar"]
    run(source, tmp_path / "anew")
    assert digests(out) == digests(tmp_path / "anew")


def test_a_shard_that_was_damaged_or_is_gone_is_made_anew(run: Run, tmp_path: Path) -> None:
    source, out = shards(tmp_path / "in"), tmp_path / "out"
    run(source, out)
    before = digests(out)
    (out / "x-000.tar").unlink()
    with (out / "x-001.tar").open("ab") as file:
        file.write(b"more")
    assert run(source, out).made == 6
    assert digests(out) == before
    content_of = bytearray((out / "x-001.tar").read_bytes())
    content_of[700] ^= 1
    (out / "x-001.tar").write_bytes(content_of)
    assert run(source, out).made == 0
    assert run(source, out, verify=True).made == 1
    assert digests(out) == before


def test_processes_write_what_one_does(run: Run, tmp_path: Path) -> None:
    source = shards(tmp_path / "in")
    run(source, tmp_path / "one")
    run(source, tmp_path / "two", concurrency=Concurrency(2, threads=2))
    assert digests(tmp_path / "one") == digests(tmp_path / "two")


def test_a_folder_becomes_shards_with_class_names(run: Run, tmp_path: Path, draw_photos: Callable[..., Path]) -> None:
    source = draw_photos(tmp_path / "in", ["cat/a.png", "cat/b.c.png", "dog/d.png"])
    run(source, tmp_path / "out", to="webdataset")
    made = open_source(tmp_path / "out")
    assert [(item.key, item.label) for item in made.items()] == [
        ("data-000000.tar/cat/a_v00", "cat"),
        ("data-000000.tar/cat/b%252Ec_v00", "cat"),
        ("data-000000.tar/dog/d_v00", "dog"),
    ]
    assert made.class_to_idx == {"cat": 0, "dog": 1}


def test_an_image_that_cannot_be_read_is_listed_and_the_rest_is_packed(run: Run, tmp_path: Path) -> None:
    members = [("a.png", picture(1)), ("b.png", b"no image"), ("c.png", picture(3)), ("a.cls", b"0")]
    report = run(tar(tmp_path / "x.tar", members), tmp_path / "out")
    assert sorted((row.key, row.error.partition(" ")[0]) for row in report.failed) == [
        ("x.tar/a", "its"),
        ("x.tar/b", "not"),
    ]
    assert [item.key for item in open_source(tmp_path / "out").items()] == ["x.tar/c_v00"]


@pytest.mark.parametrize(("format", "name"), [("webdataset", SPOOL), ("parquet", "data")])
def test_nothing_is_written_through_a_link_in_the_output(run: Run, tmp_path: Path, format: str, name: str) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DiffcleanError, match="is a link"):
        run(shards(tmp_path / "in"), tmp_path / "out", to=format)
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize("name", ["../victim.tar", "/victim.tar", "run.json", "../../x/victim.tar", 5, None, ["x.tar"]])
def test_an_index_removes_nothing_but_files_of_the_run(run: Run, tmp_path: Path, name: Any) -> None:
    """A file that the index names and the run does not need is removed: it must be one that a run has written."""
    source, out = shards(tmp_path / "in"), tmp_path / "out"
    run(source, out)
    before, victim = digests(out), tmp_path / "victim.tar"
    victim.write_bytes(b"precious")
    if name == "/victim.tar":
        name = str(victim)
    entry = {"file": name, "bytes": 8, "digest": "ab", "images": []}
    with (out / INDEX_FILE).open("a") as index:
        index.write(json.dumps(entry) + "\n")
    run(source, out)
    assert victim.read_bytes() == b"precious"
    assert (out / "run.json").is_file()
    assert digests(out) == before


@pytest.mark.parametrize(
    "change",
    [
        {"bytes": "8"},
        {"digest": None},
        {"images": 5},
        {"images": [["a", 5, 5]]},
        {"images": [[]]},
        {"dropped": 5},
        {"dropped": [[]]},
    ],
)
def test_an_index_of_other_types_is_not_believed(run: Run, tmp_path: Path, change: dict[str, Any]) -> None:
    source, out = shards(tmp_path / "in"), tmp_path / "out"
    run(source, out)
    before = digests(out)
    lines = [json.dumps(json.loads(line) | change) for line in (out / INDEX_FILE).read_text().splitlines()]
    (out / INDEX_FILE).write_text("".join(f"{line}\n" for line in [*lines, "[" * 100_000, "7"]))
    run(source, out)
    assert digests(out) == before


def test_what_cannot_be_written_in_shards_is_said_before_work(run: Run, tmp_path: Path) -> None:
    source = shards(tmp_path / "in")
    with pytest.raises(UsageError, match="is named like a file"):
        run(source, tmp_path / "out.tar")
    with pytest.raises(DiffcleanError, match="lies inside the output"):
        run(source, tmp_path / "in")
    with pytest.raises(DiffcleanError, match="lies inside the source"):
        run(tmp_path / "in", tmp_path / "in" / "out")
    run(source, tmp_path / "out")
    with pytest.raises(DiffcleanError, match='to: "webdataset" there, nothing asked for'):
        run(source, tmp_path / "out", to="folder")
