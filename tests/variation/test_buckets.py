"""`variate` from and to a bucket: the bytes of a folder, through failures, kills and moves."""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bucket_server import Bucket, make_bucket
from data_sets import content, files_below, picture, shards, tar
from shapes import draw

from diffclean.api.variate import beside
from diffclean.cli.main import main
from diffclean.data import lease
from diffclean.data.address import Address
from diffclean.data.convert import convert
from diffclean.data.merge import merge_manifests
from diffclean.data.registry import open_sink, open_source
from diffclean.data.shard import Shard
from diffclean.data.store import Store
from diffclean.errors import DiffcleanError, Interrupted
from diffclean.variation.settings import Settings
from diffclean.variation.variate import Concurrency, VariateResult, variate

Run = Callable[..., VariateResult]
KEYS = ["cat/1.png", "cat/2.png", "dog/3.png", "dog/4.png", "eel/5.png"]


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

    def go(source: Path | str, out: Path | str, **options: Any) -> VariateResult:
        options.setdefault("concurrency", Concurrency(threads=1))
        return variate(source, out, settings, **options)

    return go


@pytest.fixture
def photos(tmp_path: Path, draw_photos: Callable[..., Path], bucket: Bucket) -> Path:
    """Photographs on disk, and the same in the folder `in` of the bucket."""
    folder = draw_photos(tmp_path / "in", KEYS)
    bucket.put({f"in/{key}": (folder / key).read_bytes() for key in KEYS})
    return folder


def images(objects: Any) -> dict[str, bytes]:
    return {name: data for name, data in objects.items() if name.endswith(".png")}


def test_a_bucket_becomes_the_same_variations_as_a_folder(
    run: Run, photos: Path, bucket: Bucket, tmp_path: Path
) -> None:
    report = run(bucket / "in", bucket / "out")
    assert (report.made, report.failed, report.classes, report.where) == (5, [], 3, bucket / "out")
    run(photos, tmp_path / "out")
    there = bucket.objects("out")
    assert images(there) == images(files_below(tmp_path / "out"))
    assert sorted(name for name in there if not name.endswith(".png")) == [
        ".diffclean.lock",
        "journal.jsonl",
        "manifest.parquet",
        "run.json",
    ]
    assert there["manifest.parquet"] == (tmp_path / "out/manifest.parquet").read_bytes()
    record = json.loads(there["run.json"])
    assert record["source"] == bucket / "in"
    assert record["identity"] == json.loads((tmp_path / "out/run.json").read_text())["identity"]
    assert open_source(bucket / "out").class_to_idx == {"cat": 0, "dog": 1, "eel": 2}
    assert not any(b"of-the-tests" in data for data in there.values())
    assert run(bucket / "in", bucket / "out").kept == 5


@pytest.mark.parametrize("asked", [1, 3])
def test_a_stopped_run_goes_on_to_the_same_bytes(run: Run, photos: Path, bucket: Bucket, asked: int) -> None:
    run(bucket / "in", bucket / "whole")
    with pytest.raises(Interrupted):
        run(bucket / "in", bucket / "out", stop=StopAfter(asked))
    assert "manifest.parquet" not in bucket.objects("out")
    run(bucket / "in", bucket / "out")
    assert images(bucket.objects("out")) == images(bucket.objects("whole"))
    assert bucket.objects("out")["manifest.parquet"] == bucket.objects("whole")["manifest.parquet"]


def test_one_request_in_twenty_fails_and_nothing_is_lost(run: Run, photos: Path, bucket: Bucket) -> None:
    run(bucket / "in", bucket / "whole")
    count = iter(range(10**9))
    bucket.refuse = lambda method, path: (503, "SlowDown") if next(count) % 20 == 7 else None
    report = run(bucket / "in", bucket / "out")
    assert (report.made, report.failed) == (5, [])
    bucket.refuse = lambda method, path: None
    assert images(bucket.objects("out")) == images(bucket.objects("whole"))


def test_a_run_may_move_between_disk_and_bucket(run: Run, photos: Path, bucket: Bucket, tmp_path: Path) -> None:
    run(photos, bucket / "out")
    report = run(bucket / "in", bucket / "out")
    assert (report.made, report.kept) == (0, 5)
    assert any("is now s3://" in sentence for sentence in report.changes)
    for name, data in bucket.objects("out").items():
        path = tmp_path / "copy" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    assert run(photos, tmp_path / "copy").kept == 5


def test_what_changes_in_the_bucket_is_followed(run: Run, photos: Path, bucket: Bucket) -> None:
    run(bucket / "in", bucket / "out")
    bucket.put({"in/cat/1.png": picture(1), "in/eel/6.png": picture(6)})
    bucket.store.delete("in/dog/3.png", "out/dog/4_v00.png")
    report = run(bucket / "in", bucket / "out")
    assert (report.total, report.made, report.kept) == (5, 3, 2)
    assert "dog/3_v00.png" not in bucket.objects("out")
    run(bucket / "in", bucket / "anew")
    assert images(bucket.objects("out")) == images(bucket.objects("anew"))


def test_an_image_that_is_replaced_while_it_waits_fails_and_the_next_run_takes_it(
    run: Run, photos: Path, bucket: Bucket
) -> None:
    done: list[str] = []

    def replace_one(method: str, path: str) -> None:
        if method == "PUT" and path == "out/run.json" and not done:
            done.append(path)
            bucket.put({"in/eel/5.png": picture(9)})

    bucket.refuse = replace_one
    report = run(bucket / "in", bucket / "out")
    assert [(row.key, "changed after it was listed" in row.error) for row in report.failed] == [("eel/5.png", True)]
    assert run(bucket / "in", bucket / "out").made == 1


@pytest.mark.slow
def test_several_processes_write_into_one_bucket(run: Run, photos: Path, tars: Path, bucket: Bucket) -> None:
    for source in ("in", "shards"):
        run(bucket / source, bucket / f"{source}-one")
        run(bucket / source, bucket / f"{source}-two", concurrency=Concurrency(2, threads=2))
        one, two = bucket.objects(f"{source}-one"), bucket.objects(f"{source}-two")
        made = {name for name in one if name.endswith((".png", ".tar"))}
        assert {name: one[name] == two.get(name) for name in made} == dict.fromkeys(made, True)


def test_the_parts_of_a_divided_run_write_into_one_bucket(run: Run, photos: Path, bucket: Bucket) -> None:
    run(bucket / "in", bucket / "whole")
    for index in (1, 2):
        run(bucket / "in", bucket / "parts", shard=Shard(index, 2))
    assert images(bucket.objects("whole")) == images(bucket.objects("parts"))
    assert {"manifest-1-of-2.parquet", "manifest-2-of-2.parquet"} <= bucket.objects("parts").keys()
    (key, *_) = images(bucket.objects("parts"))
    image = bucket.objects("parts")[key]
    for bad in (b"", image + b"more"):
        bucket.put({f"parts/{key}": bad})
        with pytest.raises(DiffcleanError, match=f"{key} in s3://.* is in the manifest and an object of"):
            merge_manifests(Path(bucket / "parts"))
    bucket.put({f"parts/{key}": image})
    assert merge_manifests(Path(bucket / "parts")) == bucket / "parts/manifest.parquet"
    assert bucket.objects("parts")["manifest.parquet"] == bucket.objects("whole")["manifest.parquet"]
    assert run(bucket / "in", bucket / "parts").kept == 5
    with pytest.raises(DiffcleanError, match="joined on disk only"):
        merge_manifests([Path(bucket / "parts"), Path(bucket / "whole")])


def test_shards_of_a_run_over_tars_are_joined_in_the_bucket(run: Run, tars: Path, bucket: Bucket) -> None:
    run(bucket / "shards", bucket / "whole")
    for index in (1, 2):
        run(bucket / "shards", bucket / "parts", shard=Shard(index, 2))
    bucket.requests.clear()
    assert main(["merge", bucket / "parts"]) == 0
    assert not bucket.bytes_read(".tar"), "no image is read again"
    assert content(bucket / "parts") == content(bucket / "whole")
    assert run(bucket / "shards", bucket / "parts").kept == 6
    whole, now = bucket.objects("whole"), bucket.objects("parts")
    assert {name: now.get(name) for name in whole if name.endswith(".tar")} == {
        name: data for name, data in whole.items() if name.endswith(".tar")
    }
    assert not [name for name in now if name.endswith(".tar") and "-of-" in name]


def test_an_output_with_other_things_in_it_is_refused(run: Run, photos: Path, bucket: Bucket) -> None:
    bucket.put({"out/precious.txt": b"x"})
    with pytest.raises(DiffcleanError, match=r"is not empty and holds no run\.json"):
        run(bucket / "in", bucket / "out")
    with pytest.raises(DiffcleanError, match="lies inside the source"):
        run(bucket / "in", bucket / "in/out")


@pytest.mark.slow
def test_a_run_that_is_killed_by_the_system_goes_on_to_the_same_bytes(
    run: Run, bucket: Bucket, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.put({f"in/cat/{number}.png": picture(number) for number in range(20)})
    run(bucket / "in", bucket / "whole")
    command = ["variate", bucket / "in", "-o", bucket / "out", "--engine", str(tiny_model), "--runtime", "onnxruntime"]
    command += ["--steps", "1", "--batch", "2", "--detail", "16"]
    child = subprocess.Popen([sys.executable, "-m", "diffclean.cli.main", *command], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while child.poll() is None and time.monotonic() < deadline:
        if (
            len(
                [1 for method, path, _ in bucket.requests if method == "PUT" and path.startswith("out/.diffclean-log/")]
            )
            >= 2
        ):
            child.send_signal(signal.SIGKILL)
            break
    child.wait(120)
    assert child.returncode == -signal.SIGKILL
    monkeypatch.setattr(lease, "LIFE_S", 1.0)
    report = run(bucket / "in", bucket / "out")
    assert report.kept > 0
    assert images(bucket.objects("out")) == images(bucket.objects("whole"))


@pytest.fixture
def tars(tmp_path: Path, bucket: Bucket) -> Path:
    """Shards on disk, and the same in the folder `shards` of the bucket; the pattern that names those on disk."""
    pattern = shards(tmp_path / "shards")
    bucket.put({f"shards/{path.name}": path.read_bytes() for path in (tmp_path / "shards").iterdir()})
    return pattern


def test_shards_in_a_bucket_become_the_same_shards_as_on_disk(
    run: Run, tars: Path, bucket: Bucket, tmp_path: Path
) -> None:
    run(tars, tmp_path / "out")
    report = run(bucket / "shards/x-{000..001}.tar", bucket / "out")
    assert (report.made, report.failed) == (6, [])
    there = bucket.objects("out")
    for name in ("x-000.tar", "x-001.tar", "manifest.parquet"):
        assert there[name] == (tmp_path / "out" / name).read_bytes(), name
    assert not any(".diffclean-spool" in name for name in there)
    assert run(bucket / "shards", bucket / "out").kept == 6
    assert content(bucket / "out") == content(tmp_path / "out")


@pytest.mark.parametrize("format", ["parquet", "huggingface", "npz"])
def test_every_format_is_written_to_a_bucket_and_read_from_it(
    run: Run, tars: Path, bucket: Bucket, tmp_path: Path, format: str
) -> None:
    run(tars, tmp_path / "out", to=format)
    run(bucket / "shards", bucket / "out", to=format)
    there = bucket.objects("out")
    packed = {
        name: data
        for name, data in files_below(tmp_path / "out").items()
        if name.endswith((".parquet", ".arrow", ".npz"))
    }
    assert packed
    assert {name: there.get(name) == data for name, data in packed.items()} == dict.fromkeys(packed, True)
    assert content(bucket / "out") == content(tmp_path / "out")
    assert open_source(bucket / "out").class_to_idx == open_source(tmp_path / "out").class_to_idx
    run(bucket / "out", bucket / "again")
    run(tmp_path / "out", tmp_path / "again")
    assert content(bucket / "again") == content(tmp_path / "again")


def test_a_stopped_run_over_shards_goes_on_to_the_same_bytes(run: Run, tars: Path, bucket: Bucket) -> None:
    run(bucket / "shards", bucket / "whole")
    with pytest.raises(Interrupted):
        run(bucket / "shards", bucket / "out", stop=StopAfter(3))
    whole = bucket.objects("whole")
    for name, data in bucket.objects("out").items():
        assert not name.endswith(".tar") or data == whole[name]
    run(bucket / "shards", bucket / "out")
    assert bucket.objects("out")["x-001.tar"] == whole["x-001.tar"]


def test_a_tar_that_is_cut_off_gives_its_first_images_and_says_what_is_missing(
    run: Run, tars: Path, bucket: Bucket
) -> None:
    whole = bucket.objects("shards")["x-001.tar"]
    bucket.put({"shards/x-001.tar": whole[: len(whole) // 3]})
    report = run(bucket / "shards", bucket / "out")
    assert report.made >= 4
    assert ["cut off" in row.error for row in report.failed] == [True]


def test_a_table_in_a_bucket_is_counted_without_reading_its_images(bucket: Bucket, tmp_path: Path) -> None:
    large = [(f"{number}.png", picture(number, side=300)) for number in range(8)]
    convert(str(tar(tmp_path / "x.tar", large)), tmp_path / "table", to="parquet")
    (table,) = (tmp_path / "table/data").iterdir()
    bucket.put({"table/x.parquet": table.read_bytes()})
    bucket.requests.clear()
    assert len(open_source(bucket / "table").items()) == 8
    read = 0
    for part in bucket.bytes_read(".parquet"):
        first, last = part.removeprefix("bytes=").split("-")
        read += int(last) - int(first) + 1
    assert 0 < read < table.stat().st_size / 4


def test_what_trains_measures_and_attacks_reads_a_bucket_as_it_reads_a_folder(
    bucket: Bucket,
    tiny_archs: None,
    make_variations: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shapes = draw(tmp_path / "shapes/train", 10, 0), draw(tmp_path / "shapes/test", 4, 1)
    for name, folder in zip(("train", "test"), shapes, strict=True):
        bucket.put({f"{name}/{key}": data for key, data in files_below(folder).items()})
    monkeypatch.chdir(tmp_path)
    for where, train, test in (("disk", *map(str, shapes)), ("bucket", bucket / "train", bucket / "test")):
        assert main(["train", train, "-o", f"{where}.pt", "--arch", "tiny", "--epochs", "1"]) == 0
        assert main(["poison", train, "--attack", "badnets", "--target", "square", "-o", f"{where}-poisoned"]) == 0
        assert main(["evaluate", f"{where}.pt", test, "--poison", f"{where}-poisoned/poison.json"]) == 0
    make_variations(shapes[0], tmp_path / "varied")
    bucket.put({f"varied/{key}": data for key, data in files_below(tmp_path / "varied").items()})
    told = []
    for where, varied, test in (("disk", "varied", str(shapes[1])), ("bucket", bucket / "varied", bucket / "test")):
        distill = ["distill", "--teacher", "disk.pt", "--data", varied, "--test", test, "-o", f"{where}-student.pt"]
        capsys.readouterr()
        assert main([*distill, "--epochs", "1", "--json"]) == 0
        told.append(json.loads(capsys.readouterr().out))
    assert told[0]["losses"] == told[1]["losses"]
    assert told[0]["metrics"] == told[1]["metrics"]
    listed = []
    for varied in ("varied", bucket / "varied"):
        found = ["suspects", bucket / "train", "--detector", "variation-drop", "--teacher", "disk.pt", "--overwrite"]
        assert main([*found, "--variations", varied, "-o", "suspects.json"]) == 0
        listed.append(json.loads(Path("suspects.json").read_text()))
    assert listed[0] == listed[1]
    assert images(files_below(tmp_path / "bucket-poisoned")) == images(files_below(tmp_path / "disk-poisoned"))
    assert not (tmp_path / "s3:").exists()


def test_the_commands_of_the_page_run_as_they_stand_there(
    bucket: Bucket,
    s3_server: tuple[str, int],
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = (Path(__file__).parents[2] / "docs/buckets.md").read_text()
    commands = [shlex.split(line, comments=True)[1:] for line in re.findall(r"^diffclean .*$", page, re.MULTILINE)]
    assert {command[0] for command in commands} == {"doctor", "variate", "convert"}
    for name in ("photos", "shards", "clean"):
        make_bucket(s3_server, name)
    photos, many = (Store(Address("s3", name)) for name in ("photos", "shards"))
    for number in range(2):
        photos.put(f"2026-11/cat/{number}.png", picture(number))
    for number in range(10):
        shard = tar(tmp_path / "x.tar", [(f"{number}.png", picture(number)), (f"{number}.cls", b"0")])
        many.put(f"train-{number:04d}.tar", shard.read_bytes())
    monkeypatch.chdir(tmp_path)
    for option, value in {"ENGINE": str(tiny_model), "VARIATE_STEPS": "1", "VARIATE_DETAIL": "16"}.items():
        monkeypatch.setenv(f"DIFFCLEAN_{option}", value)
    for command in commands:
        assert main(command) == 0, f"{command}: {capsys.readouterr().err}"
    assert len(list((tmp_path / "variations/cat").iterdir())) == 2
    assert len(list((tmp_path / "photos/cat").iterdir())) == 2
    assert len(content("s3://clean/train")) == 10


def test_the_command_line_takes_addresses_and_names_what_cannot_be_done_with_them(
    bucket: Bucket, photos: Path, tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = ["--engine", str(tiny_model), "--runtime", "onnxruntime", "--steps", "1", "--batch", "2", "--detail", "16"]
    assert main(["variate", bucket / "in", *engine, "--dry-run"]) == 0
    assert f"written to {bucket / 'in-variations'}." in capsys.readouterr().out
    assert bucket.objects("in-variations") == {}
    assert main(["variate", bucket / "in", *engine, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["out"] == bucket / "in-variations"
    assert len(images(bucket.objects("in-variations"))) == 5
    assert main(["convert", bucket / "in", str(tmp_path / "here")]) == 0
    assert images(files_below(tmp_path / "here")) == images(files_below(photos))
    capsys.readouterr()
    assert main(["report", bucket / "in-variations"]) == 0
    assert capsys.readouterr().out.endswith(f"Wrote {bucket / 'in-variations/report.html'}.\n")
    assert bucket.objects("in-variations")["report.html"].count(b"data:image/webp") == 10, "originals and variations"
    assert main(["report", bucket / "in-variations", "-o", str(tmp_path / "page.html")]) == 0
    assert (tmp_path / "page.html").read_bytes() == bucket.objects("in-variations")["report.html"]
    capsys.readouterr()
    for command in (
        ["clean", str(photos), "-o", bucket / "job"],
        ["review", bucket / "in"],
        ["train", bucket / "in", "-o", bucket / "t.pt"],
    ):
        assert main(command) == 2, command
        assert "diffclean convert s3://" in capsys.readouterr().err
    assert not (Path.cwd() / "s3:").exists()
    with pytest.raises(DiffcleanError, match="whole bucket"):
        beside(Path(f"s3://{bucket.name}"))
    assert open_sink(bucket / "x").where == bucket / "x"
