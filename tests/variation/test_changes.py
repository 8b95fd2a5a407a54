"""`variate` on a data set that changed since its earlier run: what is the same is kept, and what is not is said."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from diffclean.data.journal import journal_path
from diffclean.data.manifest import read_manifest_classes, read_run_manifest
from diffclean.data.merge import merge_manifests
from diffclean.data.run_record import read_run, source_of
from diffclean.data.shard import Shard
from diffclean.errors import DiffcleanError, Interrupted
from diffclean.variation.estimate import estimate
from diffclean.variation.settings import Settings
from diffclean.variation.variate import Concurrency, VariateResult, variate

KEYS = ["cat/a.png", "cat/b.png", "dog/c.png", "dog/d.png"]
Draw = Callable[..., Path]
Run = Callable[..., VariateResult]


@pytest.fixture
def settings(tiny_model: Path, tiny_engine: Path) -> Settings:
    return Settings(engine=str(tiny_model), runtime="onnxruntime", steps=1, batch=4)


@pytest.fixture
def run(settings: Settings) -> Run:
    def go(source: Path, out: Path, **options: Any) -> VariateResult:
        return variate(source, out, settings, concurrency=Concurrency(threads=1), **options)

    return go


@pytest.fixture
def source(tmp_path: Path, draw_photos: Draw) -> Path:
    return draw_photos(tmp_path / "disk/data", KEYS)


@pytest.fixture
def out(run: Run, source: Path) -> Path:
    """A finished run."""
    return run(source, source.with_name("out")).out


def images(out: Path) -> dict[str, bytes]:
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*.png")}


def replace_image(path: Path, keep_date: bool = False) -> None:
    """Another picture under the same name; to whom asks for the date only, perhaps the same."""
    before = path.stat()
    Image.fromarray(np.full((16, 20, 3), 90, np.uint8)).save(path)
    if keep_date:
        os.truncate(path, before.st_size) if path.stat().st_size > before.st_size else None
        with path.open("ab") as file:
            file.write(b"\0" * (before.st_size - path.stat().st_size))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


# What moves is the same run.


def test_data_and_output_moved_to_another_disk_together(run: Run, source: Path, out: Path, tmp_path: Path) -> None:
    """As `cp -r` moves them: the files have other dates."""
    before = images(out)
    shutil.copytree(source.parent, tmp_path / "other", copy_function=shutil.copyfile)
    shutil.rmtree(source.parent)
    moved = tmp_path / "other/out"
    assert source_of(moved) == tmp_path / "other/data"  # found beside it, before anything has run
    report = run(tmp_path / "other/data", moved)
    assert (report.made, report.kept, images(moved)) == (0, 4, before)
    assert report.changes == [f"The source is now {tmp_path / 'other/data'}; in the earlier run it was {source}."]
    assert run(tmp_path / "other/data", moved).changes == []


def test_a_copy_is_hashed_once_and_then_known_by_its_date(
    run: Run, source: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = Path(shutil.copytree(source, tmp_path / "copy", copy_function=shutil.copyfile))
    assert run(copy, out).kept == 4

    def read(self: object, item: object) -> bytes:
        raise AssertionError("an image was read again")

    monkeypatch.setattr("diffclean.data.folder.ImageFolder.read", read)
    assert run(copy, out).kept == 4


def test_a_container_goes_on_with_what_its_host_began(run: Run, source: Path, tmp_path: Path, out: Path) -> None:
    """The same disk under another name; another user of it has no right to change dates."""
    (tmp_path / "mnt").symlink_to(source.parent)
    (out / "dog/d_v00.png").unlink()
    inside = tmp_path / "mnt"
    assert (run(inside / "data", inside / "out").made, len(images(out))) == (1, 4)


def test_shards_made_under_different_mounts_are_joined(run: Run, source: Path, tmp_path: Path, out: Path) -> None:
    outs = []
    for index in (1, 2):
        mount = tmp_path / f"mount-{index}"
        shutil.copytree(source, mount / "data", copy_function=shutil.copyfile)
        outs.append(run(mount / "data", mount / "out", shard=Shard(index, 2)).out)
    manifest = merge_manifests(outs)
    assert images(outs[0]) == images(out)
    assert read_run_manifest(manifest) == read_run_manifest(out / "manifest.parquet")
    assert run(source, outs[0]).kept == 4


def test_a_run_of_an_earlier_version_goes_on(run: Run, source: Path, out: Path) -> None:
    """Its record had the source among the settings, and its journal neither sizes nor dates."""
    record = json.loads((out / "run.json").read_text())
    identity = record["identity"] | {"source": str(source)}
    old = {"format_version": 1, "identity": identity, "class_to_idx": record["class_to_idx"], "other": {}}
    (out / "run.json").write_text(json.dumps(old))
    rows = [json.loads(line) for line in journal_path(out).read_text().splitlines()]
    new = ("output_bytes", "source_stamp")
    lines = [json.dumps({name: value for name, value in row.items() if name not in new}) for row in rows]
    journal_path(out).write_text("".join(f"{line}\n" for line in lines))
    assert (run(source, out).kept, read_run(out).images) == (4, 4)
    (out / "cat/a_v00.png").write_bytes(b"cut")
    assert (run(source, out).made, len(images(out))) == (1, 4)


def test_where_nothing_is_left_to_do_no_engine_is_opened(
    run: Run, source: Path, out: Path, monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    """It takes seconds and half a gigabyte; the record says which engine it was."""

    def opened(*arguments: object) -> None:
        raise AssertionError("an engine was opened")

    manifest = (out / "manifest.parquet").read_bytes()
    monkeypatch.setattr("diffclean.variation.settings.open_compiled", opened)
    report = run(source, out)
    assert (report.kept, report.engine) == (4, read_run(out).identity["engine"])
    (source / "dog/d.png").unlink()
    assert run(source, out).kept == 3
    assert (out / "manifest.parquet").read_bytes() != manifest
    with pytest.raises(AssertionError, match="opened"):
        variate(source, out, replace(settings, runtime="openvino"))  # another than that of the run


def test_an_engine_that_turns_out_to_be_another_is_refused_before_anything_is_dropped(
    source: Path, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`auto` may have meant another runtime when the run was begun."""
    out = variate(source, tmp_path / "out", replace(settings, runtime="onnxruntime")).out
    before = images(out)
    (source / "dog/d.png").unlink()
    replace_image(source / "cat/a.png")
    with pytest.raises(DiffcleanError, match=r"engine: .*/onnxruntime/fp32 there, .*/openvino/.* asked for"):
        variate(source, out, replace(settings, runtime="auto"))
    assert images(out) == before


# What changes is brought up to date.


def test_a_class_and_images_that_are_added(run: Run, source: Path, out: Path, draw_photos: Draw) -> None:
    """The new class sorts before the others, so that their numbers change."""
    before = images(out)
    draw_photos(source, ["ant/new.png", "dog/new.png"])
    report = run(source, out)
    assert (report.made, report.kept) == (2, 4)
    assert images(out).items() > before.items()
    assert report.changes == [
        "The source now has 6 images; in the earlier run it had 4.",
        "The classes of the source have changed (new: ant), and their numbers may have changed.",
    ]
    classes = {"ant": 0, "cat": 1, "dog": 2}
    assert read_manifest_classes(out / "manifest.parquet") == read_run(out).class_to_idx == classes


@pytest.mark.parametrize("keep_date", [False, True])
def test_an_original_that_was_replaced_is_varied_anew(run: Run, source: Path, out: Path, keep_date: bool) -> None:
    """What has the same size and date is known to be another by its hash alone."""
    before = images(out)
    replace_image(source / "cat/b.png", keep_date)
    assert run(source, out).made == (0 if keep_date else 1)
    report = run(source, out, verify=True)
    assert report.made == (1 if keep_date else 0)
    after = images(out)
    assert {name for name in before if before[name] != after[name]} == {"cat/b_v00.png"}
    rows = read_run_manifest(out / "manifest.parquet")
    assert [row.key for row in rows] == KEYS
    assert rows[1].source_sha256 == hashlib.sha256((source / "cat/b.png").read_bytes()).hexdigest()


def test_an_original_that_was_replaced_by_a_broken_file_leaves_no_old_variation(
    run: Run, source: Path, out: Path
) -> None:
    (source / "cat/b.png").write_text("no image")
    report = run(source, out)
    assert [row.key for row in report.failed] == ["cat/b.png"]
    assert "cat/b.png" in report.changes[0]
    assert "cat/b_v00.png" not in images(out)


def test_an_original_that_was_deleted_takes_its_variation_with_it(run: Run, source: Path, out: Path) -> None:
    (source / "dog/c.png").unlink()
    report = run(source, out)
    assert (report.total, report.kept, report.made) == (3, 3, 0)
    assert report.changes == [
        "The source now has 3 images; in the earlier run it had 4.",
        "Originals that are gone and whose variations were deleted: 1 (dog/c.png).",
    ]
    assert set(images(out)) == {"cat/a_v00.png", "cat/b_v00.png", "dog/d_v00.png"}
    assert [row.key for row in read_run_manifest(out / "manifest.parquet")] == ["cat/a.png", "cat/b.png", "dog/d.png"]
    assert run(source, out).changes == []


def test_a_deleted_image_that_never_worked_leaves_the_manifest(run: Run, source: Path, tmp_path: Path) -> None:
    (source / "dog/broken.png").write_text("no image")
    run(source, tmp_path / "out")
    (source / "dog/broken.png").unlink()
    report = run(source, tmp_path / "out")
    assert report.failed == []
    assert [row.key for row in read_run_manifest(tmp_path / "out/manifest.parquet")] == KEYS


# What is on disk is believed only if it is what was written.


def cut(path: Path) -> None:
    os.truncate(path, 100)


def overwrite(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"more")


def link(path: Path) -> None:
    path.rename(path.with_name(".kept"))
    path.symlink_to(".kept")


@pytest.mark.parametrize("harm", [cut, overwrite, link, Path.unlink])
def test_a_variation_that_is_not_as_it_was_written_is_made_again(
    run: Run, source: Path, out: Path, harm: Callable[[Path], None]
) -> None:
    before = images(out)
    harm(out / "cat/a_v00.png")
    report = run(source, out)
    assert (report.made, report.kept) == (1, 3)
    assert "cat/a.png" in report.changes[0]
    assert images(out) == before
    assert not (out / "cat/a_v00.png").is_symlink()
    assert len(read_run_manifest(out / "manifest.parquet")) == 4


def test_a_change_that_keeps_the_size_is_found_where_all_is_verified(run: Run, source: Path, out: Path) -> None:
    before = images(out)
    path = out / "cat/a_v00.png"
    path.write_bytes(path.read_bytes()[::-1])
    assert run(source, out).kept == 4
    assert run(source, out, verify=True).made == 1
    assert images(out) == before


def test_a_class_folder_that_became_a_link_out_of_the_output(run: Run, source: Path, out: Path, tmp_path: Path) -> None:
    """Neither believed nor written through."""
    (out / "cat").rename(tmp_path / "elsewhere")
    (out / "cat").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DiffcleanError, match="link that leads out"):
        run(source, out)
    assert len(list((tmp_path / "elsewhere").iterdir())) == 2


def test_an_estimate_counts_what_is_to_be_made_again_and_changes_nothing(
    run: Run, source: Path, out: Path, settings: Settings
) -> None:
    (source / "dog/c.png").unlink()
    cut(out / "cat/a_v00.png")
    before = images(out), journal_path(out).read_bytes()
    found = estimate(source, out, settings, threads=1)
    assert (found.images, found.already_made) == (3, 2)
    assert (images(out), journal_path(out).read_bytes()) == before


def test_stopped_while_hashing(run: Run, source: Path, out: Path) -> None:
    from threading import Event

    stop = Event()
    stop.set()
    with pytest.raises(Interrupted, match="Stopped during the comparison with the earlier run"):
        run(source, out, verify=True, stop=stop)
    assert len(images(out)) == 4
