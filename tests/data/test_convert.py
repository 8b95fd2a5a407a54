"""Data sets go from format to format and come back the same; the formats' own libraries read what was written."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data_sets import content, picture, problems, shards

from diffclean.cli.main import main
from diffclean.data.convert import convert
from diffclean.data.registry import FOLDER, FORMATS, format_of, open_source
from diffclean.errors import DiffcleanError, UsageError

CLASSES = ["cat", "dog", "eel"]
PACKED = [name for name in FORMATS if name != FOLDER]
"""A new format takes part by its line in the registry."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Seven images of three classes."""
    for number in range(7):
        path = tmp_path / "folder" / CLASSES[number % 3] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(number))
    return tmp_path / "folder"


def test_images_and_labels_survive_a_round_through_every_format(folder: Path, tmp_path: Path) -> None:
    before, here = content(folder), folder
    for name in [*PACKED, *reversed(PACKED), FOLDER]:
        there = tmp_path / f"{len(list(tmp_path.iterdir()))}-{name}"
        done = convert(str(here), there, name)
        assert (done.images, done.classes, done.failed) == (7, 3, {})
        assert format_of(str(there)) == name
        assert content(there) == before
        assert open_source(there).class_to_idx == {"cat": 0, "dog": 1, "eel": 2}
        here = there


def test_names_that_would_be_one_sample_stay_apart(folder: Path, tmp_path: Path) -> None:
    for number, name in enumerate(["a.b.png", "a_b.png", "1.png", "1.jpg", "1.b.png"]):
        (folder / "cat" / name).write_bytes(picture(100 + number))
    before = content(folder)
    convert(str(folder), tmp_path / "out", "webdataset")
    assert problems(tmp_path / "out") == {}
    assert content(tmp_path / "out") == before


def test_what_lies_beside_images_is_kept(tmp_path: Path) -> None:
    convert(str(shards(tmp_path / "in")), tmp_path / "parquet", "parquet")
    table = pq.read_table(tmp_path / "parquet" / "data" / "x-001.parquet")
    assert json.loads(table["json"][0].as_py()) == {"caption": "number 3"}
    convert(str(tmp_path / "parquet"), tmp_path / "huggingface", "huggingface")
    convert(str(tmp_path / "huggingface"), tmp_path / "tars", "webdataset")
    made = open_source(tmp_path / "tars")
    assert made.about(made.items()[3]) == {"json": b'{"caption":  "number 3"}'}
    assert [path.name for path in sorted((tmp_path / "tars").glob("*.tar"))] == ["x-000.tar", "x-001.tar"]


def test_other_columns_become_one_json_in_tars(tmp_path: Path) -> None:
    table = pa.table({"image": [picture(1)], "label": ["cat"], "width": [12], "tags": [["a", "b"]], "mask": [b"\1"]})
    table = table.select(["image", "label", "width", "tags"])
    pq.write_table(table, tmp_path / "x.parquet")
    convert(str(tmp_path / "x.parquet"), tmp_path / "tars", "webdataset")
    made = open_source(tmp_path / "tars")
    assert json.loads(made.about(made.items()[0])["json"]) == {"width": 12, "tags": ["a", "b"]}
    assert made.class_to_idx == {"cat": 0}


def test_webdataset_reads_what_was_written(folder: Path, tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    convert(str(folder), tmp_path / "out", "webdataset")
    read = webdataset.WebDataset(str(tmp_path / "out" / "data-000000.tar"), shardshuffle=False)
    found = sorted((CLASSES[int(sample["cls"])], sample["png"]) for sample in read)
    assert found == content(folder)


def test_columns_of_a_table_beside_images_are_kept(tmp_path: Path) -> None:
    """The layout of `load_dataset("imagefolder")`."""
    (tmp_path / "in").mkdir()
    rows = []
    for number, label in enumerate(CLASSES):
        (tmp_path / "in" / f"{number}.png").write_bytes(picture(number))
        rows.append({"file_name": f"{number}.png", "label": label, "width": number, "note": [number, "x"][number % 2]})
    (tmp_path / "in" / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(DiffcleanError, match=r"metadata\.jsonl beside its images"):
        convert(str(tmp_path / "in"), tmp_path / "out", "parquet")
    convert(str(tmp_path / "in"), tmp_path / "out", "parquet", label_from="metadata.jsonl")
    source = open_source(tmp_path / "out")
    assert [item.label for item in source.items()] == CLASSES
    assert [source.about(item) for item in source.items()] == [
        {"width": 0, "note": "0"},
        {"width": 1, "note": "x"},
        {"width": 2, "note": "2"},
    ]


@pytest.mark.parametrize("name", ["parquet", "huggingface", "webdataset"])
def test_datasets_reads_what_was_written(
    folder: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets")
    convert(str(folder), tmp_path / "out", name)
    options = {"cache_dir": str(tmp_path / "cache"), "split": "train"}
    if name == "huggingface":
        read = datasets.load_from_disk(str(tmp_path / "out"))
    elif name == "parquet":
        read = datasets.load_dataset(str(tmp_path / "out"), **options)
    else:
        read = datasets.load_dataset("webdataset", data_files=str(tmp_path / "out" / "*.tar"), **options)
    image = "png" if name == "webdataset" else "image"
    read = read.cast_column(image, datasets.Image(decode=False))
    if name == "webdataset":
        found = [(CLASSES[row["cls"]], row[image]["bytes"]) for row in read]
    else:
        assert read.features["label"].names == CLASSES
        found = [(CLASSES[row["label"]], row[image]["bytes"]) for row in read]
    assert sorted(found) == content(folder)


def test_pandas_reads_what_was_written(folder: Path, tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    convert(str(folder), tmp_path / "out", "parquet")
    table = pandas.read_parquet(tmp_path / "out" / "data")
    assert sorted((CLASSES[row.label], row.image["bytes"]) for row in table.itertuples()) == content(folder)


def test_numpy_reads_what_was_written(folder: Path, tmp_path: Path) -> None:
    convert(str(folder), tmp_path / "out", "npz")
    with np.load(tmp_path / "out" / "data.npz", allow_pickle=False) as arrays:
        assert arrays["images"].shape == (7, 12, 12, 3)
        assert [arrays["class_names"][label] for label in arrays["labels"]] == ["cat"] * 3 + ["dog"] * 2 + ["eel"] * 2


def test_what_datasets_wrote_is_read_with_its_class_names(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"img": datasets.Image(), "fine": datasets.ClassLabel(names=["b", "a"]), "note": datasets.Value("string")}
    )
    rows = {"img": [{"bytes": picture(n), "path": None} for n in range(4)], "fine": [0, 1, 1, 0], "note": list("wxyz")}
    made = datasets.Dataset.from_dict(rows, features=features)
    made.save_to_disk(str(tmp_path / "saved"), num_shards=2)
    datasets.DatasetDict({"train": made, "test": made}).save_to_disk(str(tmp_path / "both"))
    made.to_parquet(str(tmp_path / "x.parquet"))
    for where in ("saved", "x.parquet", "both/train"):
        source = open_source(tmp_path / where)
        assert source.class_to_idx == {"b": 0, "a": 1}
        assert [item.label for item in source.items()] == ["b", "a", "a", "b"]
        assert source.about(source.items()[2]) == {"note": "y"}
    with pytest.raises(DiffcleanError, match=r"parts test, train[\s\S]*both/test"):
        open_source(tmp_path / "both")
    convert(str(tmp_path / "saved"), tmp_path / "again", "huggingface")
    again = datasets.load_from_disk(str(tmp_path / "again"))
    assert again.features["fine"].names == ["b", "a"]
    assert list(again["note"]) == list("wxyz")


def test_the_command_says_what_it_wrote_and_lists_what_it_could_not(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "cat" / "broken.png").symlink_to("/nowhere")
    assert main(["convert", str(folder), str(tmp_path / "out"), "--to", "parquet", "--json"]) == 3
    told = json.loads(capsys.readouterr().out)
    assert (told["images"], told["classes"], list(told["failed"])) == (7, 3, ["cat/broken.png"])
    assert main(["convert", str(folder), str(tmp_path / "out")]) == 1
    assert "exists" in capsys.readouterr().err
    assert main(["convert", str(folder), str(folder / "inside"), "--to", "npz"]) == 1
    assert "lies inside the source" in capsys.readouterr().err


def test_images_of_several_sizes_do_not_fit_into_an_array(folder: Path, tmp_path: Path) -> None:
    (folder / "cat" / "large.png").write_bytes(picture(1, side=20))
    with pytest.raises(DiffcleanError, match=r"differ in size[\s\S]*`to` parquet"):
        convert(str(folder), tmp_path / "out", "npz")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"], "nothing is left behind"


def test_an_array_of_greys_or_with_channels_first_is_read(tmp_path: Path) -> None:
    levels = np.random.default_rng(0).integers(0, 255, (5, 8, 9), np.uint8)
    for name, images in {"grey": levels, "first": np.stack([levels] * 3, 1), "last": levels[..., None]}.items():
        np.savez_compressed(tmp_path / f"{name}.npz", X=images, y=np.arange(5) % 2)
    assert content(tmp_path / "grey.npz") == content(tmp_path / "first.npz") == content(tmp_path / "last.npz")
    assert {label for label, _ in content(tmp_path / "grey.npz")} == {"0", "1"}
    assert io.BytesIO(content(tmp_path / "grey.npz")[0][1]).read(4) == b"\x89PNG"


def test_labels_of_numbers_and_words_survive_in_every_format(tmp_path: Path) -> None:
    """In tars, `1 2 3 other` had its numbers read as places in the list of labels."""
    odd = ["1", "2", "3", "other", "milk 2%25", "0%25", "_.hidden"]
    for number, label in enumerate(odd):
        path = tmp_path / "folder" / label.replace("%25", "%") / f"{number}.png"
        path.parent.mkdir(parents=True)
        path.write_bytes(picture(number))
    before = content(tmp_path / "folder")
    assert {label for label, _ in before} == set(odd)
    here = tmp_path / "folder"
    for name in [*PACKED, *reversed(PACKED), FOLDER]:
        there = tmp_path / f"{len(list(tmp_path.iterdir()))}-{name}"
        convert(str(here), there, name)
        assert content(there) == before
        assert open_source(there).class_to_idx == open_source(tmp_path / "folder").class_to_idx
        here = there


def test_names_of_classes_that_hold_a_percent_sign_are_one_class_each(tmp_path: Path) -> None:
    features = {"label": {"names": ["0%", "100%"], "_type": "ClassLabel"}}
    table = pa.table({"image": [picture(1), picture(2)], "label": [0, 1]})
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, tmp_path / "x.parquet")
    source = open_source(tmp_path / "x.parquet")
    assert [item.label for item in source.items()] == ["0%25", "100%25"]
    assert source.class_to_idx == {"0%25": 0, "100%25": 1}


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    """Four images in no class folder; a table gives them the labels 0 and 1, as numbers."""
    (tmp_path / "flat").mkdir()
    for number in range(4):
        (tmp_path / "flat" / f"{number}.png").write_bytes(picture(number))
    rows = [{"file_name": f"./{number}.png", "label": number % 2} for number in range(4)]
    (tmp_path / "flat" / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return tmp_path / "flat"


def test_a_table_of_labels_becomes_class_folders(flat: Path, tmp_path: Path) -> None:
    """The label 0 is a label, and `./0.png` is `0.png`."""
    done = convert(str(flat), tmp_path / "out", FOLDER, label_from="metadata.jsonl")
    assert (done.images, done.classes) == (4, 2)
    made = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.png"))
    assert made == ["0/0.png", "0/2.png", "1/1.png", "1/3.png"]


def test_a_table_that_names_none_of_the_images_is_refused(flat: Path, caplog: pytest.LogCaptureFixture) -> None:
    table = flat / "metadata.csv"
    table.write_text("file_name,label\n0,cat\n1,dog\n")
    with pytest.raises(UsageError, match=r"metadata\.csv names none of the 4 images .* first image is '0\.png'"):
        open_source(flat, label_from="metadata.csv").items()
    table.write_text("file_name,label\n0.png,cat\n1.png,dog\n")
    assert [item.label for item in open_source(flat, label_from="metadata.csv").items()] == ["cat", "dog", "", ""]
    assert "names no label for 2 of 4 images, such as 2.png" in caplog.text


def test_a_line_separator_in_a_caption_ends_no_line(flat: Path) -> None:
    rows = [{"file_name": f"{number}.png", "label": "cat", "caption": "a\u2028b"} for number in range(4)]
    text = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    (flat / "metadata.jsonl").write_text(text, encoding="utf-8")
    source = open_source(flat, label_from="metadata.jsonl")
    assert source.about(source.items()[0]) == {"caption": "a\u2028b"}


def test_a_name_that_is_too_long_for_a_folder_fails_alone(tmp_path: Path) -> None:
    members = {f"cat/{number}.png": picture(number) for number in range(2)} | {f"{'long' * 64}.png": picture(3)}
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    done = convert(str(tmp_path / "x.tar"), tmp_path / "out", FOLDER)
    assert (done.images, len(done.failed)) == (2, 1)


def test_a_conversion_touches_nothing_that_another_process_is_making(folder: Path, tmp_path: Path) -> None:
    """In containers, every process has the same number; the folder of another one was removed."""
    for name in (f".out.{os.getpid()}.part", ".out.part"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "work").write_text("of another container")
    convert(str(folder), tmp_path / "out", FOLDER)
    assert (tmp_path / f".out.{os.getpid()}.part" / "work").is_file()
    assert len(list(tmp_path.glob(".diffclean*"))) == 0
