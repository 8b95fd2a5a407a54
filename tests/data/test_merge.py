from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import pytest

from diffclean.data.atomic import Writer
from diffclean.data.journal import Journal, journal_path, read_journal
from diffclean.data.lock import Lock
from diffclean.data.manifest import (
    Row,
    Status,
    read_manifest_classes,
    read_run_manifest,
    rows_as_lines,
    write_manifest,
)
from diffclean.data.merge import merge_manifests
from diffclean.data.run_record import RunRecord, open_run, read_run
from diffclean.data.shard import Shard
from diffclean.errors import DiffcleanError

RECORD = RunRecord({"steps": 20}, {"cat": 0})
MORE = {"cat": 0, "dog": 1, "eel": 2}


def run_shard(out: Path, shard: Shard, keys: list[str], record: RunRecord = RECORD, finish: bool = True) -> list[Row]:
    """What a run of one shard leaves; the first image took two attempts."""
    with Lock(out, shard.name):
        open_run(out, record)
        rows = [Row(key=keys[0], label="cat", status=Status.FAILED, error="busy")]
        for key in keys:
            data = f"image {key}".encode()
            output = key.replace(".jpg", "_v00.png")
            Writer(out, shard.name).write(output, data)
            rows.append(Row(key=key, output=output, label="cat", output_sha256=hashlib.sha256(data).hexdigest()))
        with Journal.open(journal_path(out, shard)) as journal:
            journal.append(rows)
        if finish:
            write_manifest(out, rows, class_to_idx=record.class_to_idx, shard=shard)
    return rows


def test_shards_in_one_folder(tmp_path: Path) -> None:
    rows = run_shard(tmp_path, Shard(1, 2), ["cat/b.jpg"]) + run_shard(
        tmp_path, Shard(2, 2), ["cat/a.jpg", "cat/c.jpg"]
    )
    path = merge_manifests(tmp_path)
    assert path == tmp_path / "manifest.parquet"
    assert read_run_manifest(path) == sorted(rows, key=lambda row: row.key)
    assert read_manifest_classes(path) == {"cat": 0}
    assert read_journal(journal_path(tmp_path)) == read_run_manifest(path)
    once = path.read_bytes()
    assert merge_manifests([tmp_path, tmp_path]).read_bytes() == once


def test_shards_in_several_folders(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("one", "two", "three")]
    for index, folder in enumerate(folders, start=1):
        run_shard(folder, Shard(index, 3), [f"cat/{index}.jpg", f"dog {index}/%FF.jpg"])
    for _ in range(2):  # again: as after an interruption
        rows = read_run_manifest(merge_manifests(folders))
        assert len(rows) == 9
        for row in rows:
            if row.status is Status.OK:
                image = folders[0] / os.fsdecode(row.output.replace("%FF", "\udcff"))
                assert hashlib.sha256(image.read_bytes()).hexdigest() == row.output_sha256
    assert (folders[2] / "cat/3_v00.png").exists()


def expect(match: str, *outs: Path) -> None:
    before = sorted(path for out in outs for path in out.rglob("*") if path.suffix != ".lock")
    with pytest.raises(DiffcleanError, match=match):
        merge_manifests(outs)
    assert sorted(path for out in outs for path in out.rglob("*") if path.suffix != ".lock") == before


def test_missing_and_unfinished_shards_are_named(tmp_path: Path) -> None:
    run_shard(tmp_path, Shard(1, 4), ["a.jpg"])
    run_shard(tmp_path, Shard(3, 4), ["b.jpg"], finish=False)
    expect("shard 2-of-4 is missing, shard 3-of-4 has not finished, shard 4-of-4 is missing", tmp_path)
    expect("not a folder", tmp_path / "nowhere")


def test_names_of_shards_that_cannot_be_are_not_counted(tmp_path: Path) -> None:
    run_shard(tmp_path, Shard(1, 4), ["a.jpg"])
    (tmp_path / "manifest-1-of-4.parquet").rename(tmp_path / "manifest-1-of-300000.parquet")
    expect(r"shard 21-of-300000 is missing, and 299979 more\.", tmp_path)
    (tmp_path / "manifest-1-of-300000.parquet").unlink()
    for name in ("0-of-4", "5-of-4", "1-of-1000000000000", f"1-of-{'9' * 200}"):
        (tmp_path / f"manifest-{name}.parquet").write_bytes(b"x")
    expect("No finished shard", tmp_path)


def test_no_shards_at_all(tmp_path: Path) -> None:
    open_run(tmp_path, RECORD)
    expect("No finished shard", tmp_path)


def test_a_shard_that_was_started_again(tmp_path: Path) -> None:
    run_shard(tmp_path, Shard(1, 2), ["a.jpg"])
    run_shard(tmp_path, Shard(2, 2), ["b.jpg"])
    with Journal.open(journal_path(tmp_path, Shard(2, 2))) as journal:
        journal.append([Row(key="c.jpg")])
    expect("Shard 2-of-2 was started again", tmp_path)


def test_a_shard_that_is_running(tmp_path: Path) -> None:
    run_shard(tmp_path, Shard(1, 1 + 1), ["a.jpg"])
    with Lock(tmp_path, "2-of-2"):
        expect("is being written", tmp_path)


def test_two_divisions(tmp_path: Path) -> None:
    run_shard(tmp_path, Shard(1, 2), ["a.jpg"])
    run_shard(tmp_path, Shard(2, 3), ["b.jpg"])
    expect("different numbers of parts: 2 and 3", tmp_path)


def test_a_shard_twice(tmp_path: Path) -> None:
    for name in ("one", "two"):
        run_shard(tmp_path / name, Shard(1, 2), ["a.jpg"])
    expect("1-of-2 is there twice", tmp_path / "one", tmp_path / "two")


def test_an_image_twice(tmp_path: Path) -> None:
    run_shard(tmp_path, Shard(1, 2), ["a.jpg", "b.jpg"])
    run_shard(tmp_path, Shard(2, 2), ["c.jpg", "b.jpg"])
    expect(r"b\.jpg \(variant 0\) is in shard 1-of-2 and in 2-of-2", tmp_path)


def test_shards_of_two_runs(tmp_path: Path) -> None:
    run_shard(tmp_path / "one", Shard(1, 2), ["a.jpg"])
    run_shard(tmp_path / "two", Shard(2, 2), ["b.jpg"], replace(RECORD, identity={"steps": 50}))
    expect("steps: 20 there, 50 asked for", tmp_path / "one", tmp_path / "two")


def test_an_image_that_is_gone(tmp_path: Path) -> None:
    run_shard(tmp_path / "one", Shard(1, 2), ["a.jpg"])
    run_shard(tmp_path / "two", Shard(2, 2), ["b.jpg"])
    (tmp_path / "two/b_v00.png").unlink()
    expect(r"b_v00\.png.* not on disk", tmp_path / "one", tmp_path / "two")
    (tmp_path / "two/b_v00.png").symlink_to("/etc/hostname")
    expect("plain file", tmp_path / "one", tmp_path / "two")


def test_a_file_in_the_way_is_not_overwritten(tmp_path: Path) -> None:
    run_shard(tmp_path / "one", Shard(1, 2), ["a.jpg"])
    run_shard(tmp_path / "two", Shard(2, 2), ["b.jpg"])
    (tmp_path / "one/b_v00.png").write_bytes(b"something else")
    expect("in the way", tmp_path / "one", tmp_path / "two")
    assert (tmp_path / "one/b_v00.png").read_bytes() == b"something else"


def test_a_manifest_that_leads_out(tmp_path: Path) -> None:
    run_shard(tmp_path / "one", Shard(1, 2), ["a.jpg"])
    run_shard(tmp_path / "two", Shard(2, 2), ["b.jpg"])
    (tmp_path / "secret").write_bytes(b"secret")
    rows = [Row(key="b.jpg", output="../secret"), Row(key="c.jpg")]
    journal_path(tmp_path / "two", Shard(2, 2)).write_bytes(rows_as_lines(rows))
    write_manifest(tmp_path / "two", rows, class_to_idx={"cat": 0}, shard=Shard(2, 2))
    expect("Not a key", tmp_path / "one", tmp_path / "two")


def test_a_merged_folder_that_went_on(tmp_path: Path) -> None:
    run_shard(tmp_path, Shard(1, 2), ["a.jpg"])
    run_shard(tmp_path, Shard(2, 2), ["b.jpg"])
    merge_manifests(tmp_path)
    with Journal.open(journal_path(tmp_path)) as journal:
        journal.append([Row(key="new.jpg")])
    expect("more than its shards", tmp_path)


def test_a_variation_that_was_changed_after_it_was_made_is_found(tmp_path: Path) -> None:
    """Of the same size, so that only its hash can tell."""
    run_shard(tmp_path, Shard(1, 2), ["a.jpg"])
    run_shard(tmp_path, Shard(2, 2), ["b.jpg"])
    path = tmp_path / "b_v00.png"
    path.write_bytes(path.read_bytes()[::-1])
    expect(r"b_v00\.png.* not as it was written", tmp_path)


def test_shards_that_were_made_under_different_mounts_with_more_classes_by_and_by(tmp_path: Path) -> None:
    first = replace(RECORD, source="/mnt/a/data", class_to_idx={"cat": 0, "eel": 1})
    run_shard(tmp_path / "one", Shard(1, 2), ["cat/a.jpg"], first)
    run_shard(tmp_path / "two", Shard(2, 2), ["dog/b.jpg"], replace(first, source="/srv/data", class_to_idx=MORE))
    assert read_manifest_classes(merge_manifests([tmp_path / "one", tmp_path / "two"])) == MORE
    assert read_run(tmp_path / "one").class_to_idx == MORE


def test_a_shard_whose_manifest_is_older_than_its_journal(tmp_path: Path) -> None:
    """An image was replaced and varied anew, and the run was killed before it wrote its manifest."""
    run_shard(tmp_path, Shard(1, 2), ["a.jpg"])
    rows = run_shard(tmp_path, Shard(2, 2), ["b.jpg"])
    with Journal.open(journal_path(tmp_path, Shard(2, 2))) as journal:
        journal.forget([("b.jpg", 0, "the original was replaced")])
        journal.append([rows[0], replace(rows[1], source_sha256="new")])
    expect("Shard 2-of-2 was started again", tmp_path)


def test_a_shard_whose_journal_is_gone_is_joined_by_its_manifest(tmp_path: Path) -> None:
    rows = run_shard(tmp_path, Shard(1, 2), ["a.jpg"]) + run_shard(tmp_path, Shard(2, 2), ["b.jpg"])
    journal_path(tmp_path, Shard(2, 2)).unlink()
    assert read_run_manifest(merge_manifests(tmp_path)) == rows
