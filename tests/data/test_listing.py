"""What of a folder is taken and what is passed over, and that both are told."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import numpy as np
import pytest
from image_files import saved
from PIL import Image

from diffclean.data.decode import decode
from diffclean.data.folder import ImageFolder
from diffclean.data.item import ReadError
from diffclean.errors import DiffcleanError, UsageError

RED = Image.new("RGB", (8, 8), (200, 60, 60))
JPEG, PNG = saved(RED, "JPEG"), saved(RED, "PNG")


def put(root: Path, *names: str, data: bytes = JPEG) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def keys(root: Path) -> list[str]:
    return [item.key for item in ImageFolder(root).items()]


@pytest.mark.parametrize("name", ["a.jfif", "a.jpe", "a.jpg_large", "a.jpg?size=l", "a", "a.txt", "a.JPG.bak", "a.tmp"])
def test_a_jpeg_is_taken_whatever_it_is_called(tmp_path: Path, name: str) -> None:
    put(tmp_path, f"cat/{name}")
    assert keys(tmp_path) == [f"cat/{name}"]


@pytest.mark.parametrize(
    "format", ["AVIF", "JPEG2000", "MPO", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "ICO", "PCX", "SGI", "QOI"]
)
def test_every_format_is_known_by_its_content(tmp_path: Path, format: str) -> None:
    put(tmp_path, "cat/file", data=saved(RED, format))
    assert keys(tmp_path) == ["cat/file"]
    assert ImageFolder(tmp_path).passed_over.as_json()["files"] == 0


def test_a_class_of_avif_and_jpeg_2000_is_there(tmp_path: Path) -> None:
    put(tmp_path, "a/1.jpg")
    put(tmp_path, "b/1.avif", data=saved(RED, "AVIF"))
    put(tmp_path, "b/2.jp2", data=saved(RED, "JPEG2000"))
    assert ImageFolder(tmp_path).class_to_idx == {"a": 0, "b": 1}


def test_what_is_passed_over_is_counted_by_kind_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    put(tmp_path, "a/1.jpg", "c/1.jpg")
    put(tmp_path, "b/1.psd", "b/deep/2.psd", "b/read me", "a/notes.TXT", ".hidden", data=b"no image")
    put(tmp_path, "run.json", "manifest.parquet", "journal.jsonl", ".diffclean.lock", data=b"{}")
    source = ImageFolder(tmp_path)
    with caplog.at_level(logging.WARNING):
        assert [item.key for item in source.items()] == ["a/1.jpg", "c/1.jpg"]
    found = source.passed_over.as_json()
    assert found["kinds"] == {"psd": 2, "without extension": 1, "txt": 1}
    assert (found["files"], found["hidden"], found["folders_without_images"]) == (4, 1, ["b"])
    assert "4 files are not images that diffclean reads: 2 .psd" in caplog.text
    assert "Folders that hold nothing else: b." in caplog.text
    caplog.clear()
    ImageFolder(tmp_path).items()
    assert caplog.text == ""  # said once


def test_a_class_that_holds_nothing_that_is_taken_keeps_its_number(tmp_path: Path) -> None:
    put(tmp_path, "a/1.jpg", "c/1.jpg")
    put(tmp_path, "b/1.psd", data=b"8BPS")
    assert ImageFolder(tmp_path).class_to_idx == {"a": 0, "b": 1, "c": 2}


def test_a_flat_folder_beside_some_notes_has_no_class(tmp_path: Path) -> None:
    put(tmp_path, "1.jpg")
    put(tmp_path, "docs/a.txt", data=b"text")
    assert ImageFolder(tmp_path).class_to_idx == {}


def test_heic_without_its_extra_is_told_with_what_to_type(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    put(tmp_path, "a/1.jpg")
    put(tmp_path, "a/2.dat", data=b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    source = ImageFolder(tmp_path)
    taken = len(source.items())
    if taken == 1:  # the extra is not installed
        assert source.passed_over.as_json()["kinds"] == {"heic": 1}
        assert "pip install 'diffclean[heic]'" in caplog.text


@pytest.mark.parametrize(
    "name",
    ["@eaDir", "$RECYCLE.BIN", "#recycle", "System Volume Information", "lost+found", "__MACOSX", "@Recycle",
     "@SynoResource", "$Extend", "node_modules", "@Transcode",
     "#snapshot", "FOUND.001", "t.pt.tensorboard"],
)  # fmt: skip
def test_folders_no_person_made_are_no_classes(tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    put(tmp_path, "cat/1.jpg", f"{name}/1.jpg", f"cat/{name}/2.jpg")
    source = ImageFolder(tmp_path)
    assert source.class_to_idx == {"cat": 0}
    assert [item.key for item in source.items()] == ["cat/1.jpg"]
    assert len(source.passed_over.machine_made) == 2
    assert "Folders that no person made were passed over" in caplog.text


def test_what_an_operating_system_leaves_makes_no_class(tmp_path: Path) -> None:
    put(tmp_path, "cat/1.jpg")
    put(tmp_path, "cat/Thumbs.db", "dog/desktop.ini", data=b"x")
    source = ImageFolder(tmp_path)
    assert source.class_to_idx == {"cat": 0}
    assert source.passed_over.as_json() | {"hidden": 2, "files": 0} == source.passed_over.as_json()


def test_a_link_that_leads_out_says_the_way_out(tmp_path: Path) -> None:
    put(tmp_path, "in/a/1.jpg", "out/2.jpg")
    (tmp_path / "in/a/2.jpg").symlink_to("../../out/2.jpg")
    assert "cp -rL" in (ImageFolder(tmp_path / "in").items()[1].problem or "")


def test_a_folder_swapped_for_a_link_during_a_run_is_not_followed(tmp_path: Path) -> None:
    put(tmp_path, "in/cat/1.jpg")
    put(tmp_path, "secret/1.jpg", data=b"secret")
    source = ImageFolder(tmp_path / "in")
    item = source.items()[0]
    assert source.read(item) == JPEG
    (tmp_path / "in/cat").rename(tmp_path / "moved")
    (tmp_path / "in/cat").symlink_to(tmp_path / "secret")
    with pytest.raises(ReadError):
        source.read(item)


def test_a_source_swapped_for_a_link_during_a_run_is_not_followed(tmp_path: Path) -> None:
    put(tmp_path, "in/1.jpg")
    put(tmp_path, "secret/1.jpg", data=b"secret")
    source = ImageFolder(tmp_path / "in")
    item = source.items()[0]
    (tmp_path / "in").rename(tmp_path / "moved")
    (tmp_path / "in").symlink_to(tmp_path / "secret")
    assert source.read(item) == JPEG  # of the folder that was listed


def test_a_pipe_with_a_strange_name_is_not_waited_for(tmp_path: Path) -> None:
    put(tmp_path, "a/1.jpg")
    os.mkfifo(tmp_path / "a/pipe")
    source = ImageFolder(tmp_path)
    assert len(source.items()) == 1
    assert source.passed_over.as_json()["files"] == 1


@pytest.mark.parametrize(
    "names", [["train/cat/1.jpg", "val/cat/2.jpg"], ["train/1.jpg", "test/2.jpg"], ["train/a/1.jpg"]]
)
def test_parts_of_a_data_set_are_not_taken_for_classes(tmp_path: Path, names: list[str]) -> None:
    put(tmp_path, *names)
    with pytest.raises(DiffcleanError, match=r"train/.* where classes are expected") as raised:
        _ = ImageFolder(tmp_path).class_to_idx
    assert "`label_from` subfolder" in raised.value.hint
    assert set(ImageFolder(tmp_path, label_from="folder").class_to_idx) == {name.split("/")[0] for name in names}


def test_labels_below_parts(tmp_path: Path) -> None:
    put(tmp_path, "train/cat/1.jpg", "train/dog/deep/2.jpg", "val/cat/3.jpg")
    source = ImageFolder(tmp_path, label_from="subfolder")
    assert [item.label for item in source.items()] == ["cat", "dog", "cat"]
    assert source.class_to_idx == {"cat": 0, "dog": 1}


def test_a_table_beside_the_images_is_asked_about_and_read(tmp_path: Path) -> None:
    put(tmp_path, "1.jpg", "2.jpg", "3.jpg")
    put(tmp_path, "metadata.csv", data=b"file_name,label,caption\n1.jpg,cat,a\n2.jpg,dog,b\n")
    with pytest.raises(DiffcleanError, match=r"has a metadata\.csv") as raised:
        _ = ImageFolder(tmp_path).class_to_idx
    assert "`label_from` metadata.csv" in raised.value.hint
    assert [item.label for item in ImageFolder(tmp_path, label_from="metadata.csv").items()] == ["cat", "dog", ""]
    by_caption = ImageFolder(tmp_path, label_from="metadata.csv:caption")
    assert by_caption.class_to_idx == {"a": 0, "b": 1}
    assert ImageFolder(tmp_path, label_from="folder").class_to_idx == {}


def test_a_table_in_json_lines(tmp_path: Path) -> None:
    put(tmp_path, "train/1.jpg")
    put(tmp_path, "train/metadata.jsonl", data=b'{"file_name": "1.jpg", "label": 7}\n')
    assert ImageFolder(tmp_path, label_from="train/metadata.jsonl").class_to_idx == {"7": 0}


@pytest.mark.parametrize(
    ("content", "asked", "said"),
    [
        (b"file_name,x\n1.jpg,2\n", "metadata.csv", "columns: file_name, x"),
        (b"file_name,x\n1.jpg,2\n", "metadata.csv:y", "columns: file_name, x"),
        (b"\xff\xfe", "metadata.csv", "UTF-8"),
        (b"", "metadata.csv", "columns: none"),
        (b"x", "other.csv", "No such file"),
        (b"file_name,label," + b",".join(b"%d" % n for n in range(5000)) + b"\nx" * 5000, "metadata.csv", "cells"),
    ],
)
def test_a_table_that_cannot_be_used(tmp_path: Path, content: bytes, asked: str, said: str) -> None:
    put(tmp_path, "1.jpg")
    put(tmp_path, "metadata.csv", data=content)
    with pytest.raises(UsageError, match=said):
        ImageFolder(tmp_path, label_from=asked).items()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (json.dumps({"file_name": "a", "label": "b"} | {str(n): 0 for n in range(5000)}) + "\n{}" * 5000, "cells"),
        ("[" * 100_000, "nested too deeply"),
        ("[" * 150 + "]" * 150, "nested too deeply"),
        ('{"file_name": "1.jpg", "label": "\\ud800"}', "surrogate"),
        ('{"file_name": "1.jpg", "label": 1e999}', "too large"),
        ("7", "not a JSON object"),
    ],
)
def test_json_lines_that_cannot_be_used(tmp_path: Path, content: str, said: str) -> None:
    put(tmp_path, "1.jpg")
    put(tmp_path, "metadata.jsonl", data=content.encode())
    with pytest.raises(UsageError, match=said):
        ImageFolder(tmp_path, label_from="metadata.jsonl").items()


def test_heic_with_its_extra(tmp_path: Path) -> None:
    heif = pytest.importorskip("pillow_heif", reason="the extra heic is not installed")
    heif.register_heif_opener()
    put(tmp_path, "a/1.heic", "a/2", data=saved(RED.resize((64, 48)), "HEIF", quality=100))
    source = ImageFolder(tmp_path)
    assert [item.key for item in source.items()] == ["a/1.heic", "a/2"]
    found = decode(source.read(source.items()[1]))
    assert np.abs(found.astype(int) - [200, 60, 60]).max() <= 3


@pytest.mark.parametrize("extension", ["dng", "NEF", "cr2"])
def test_raw_camera_files_are_passed_over_though_they_look_like_tiff(tmp_path: Path, extension: str) -> None:
    (tmp_path / "ant").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "ant" / "photo.tif")
    (tmp_path / "ant" / f"photo.{extension}").write_bytes((tmp_path / "ant" / "photo.tif").read_bytes())
    source = ImageFolder(tmp_path)
    assert [item.key for item in source.items()] == ["ant/photo.tif"]
    assert source.passed_over.kinds == {extension.lower(): 1}
