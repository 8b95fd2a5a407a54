"""Parquet files, saved data sets and array files that are damaged, hostile or simply something else."""

from __future__ import annotations

import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data_sets import picture

from diffclean.data.convert import convert
from diffclean.data.keys import variation_name
from diffclean.data.registry import format_of, open_source
from diffclean.errors import DiffcleanError, UsageError


def parquet(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def test_a_table_without_images_names_its_columns(tmp_path: Path) -> None:
    path = parquet(tmp_path / "x.parquet", url=["a"], label=[1])
    with pytest.raises(DiffcleanError, match=r"no column of images. Its columns: url \(string\), label \(int64\)"):
        open_source(path).items()


def test_several_columns_that_may_hold_images_are_named(tmp_path: Path) -> None:
    path = parquet(tmp_path / "x.parquet", left=[b"1"], right=[b"2"])
    with pytest.raises(DiffcleanError, match=r"several columns that may hold images: left, right[\s\S]*Call the one"):
        open_source(path).items()
    assert len(open_source(parquet(tmp_path / "y.parquet", mask=[b"1"], image=[picture(1)])).items()) == 1


def test_labels_come_from_the_column_that_is_named(tmp_path: Path) -> None:
    path = parquet(tmp_path / "x.parquet", image=[picture(1), picture(2)], label=[7, 10], kind=["a/b", "c"])
    assert open_source(path).class_to_idx == {"7": 0, "10": 1}
    assert [item.label for item in open_source(path, label_from="kind").items()] == ["a_b", "c"]
    with pytest.raises(UsageError, match=r"no column 'other'; there are: image, label, kind"):
        open_source(path, label_from="other").items()


def test_rows_of_a_file_with_dots_in_its_name_have_names_of_their_own(tmp_path: Path) -> None:
    path = parquet(tmp_path / "data.v1.parquet", image=[picture(n) for n in range(3)], label=["St. B", "", "x"])
    source = open_source(path)
    names = [variation_name(source.name(item), 0, "png") for item in source.items()]
    assert names == [
        "St. B/data_v1_000000000_v00.png",
        "data_v1_000000001_v00.png",
        "x/data_v1_000000002_v00.png",
    ]


def test_minus_one_is_no_label(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", images=np.zeros((3, 4, 4, 3), np.uint8), labels=np.array([1, -1, 0]))
    parquet(tmp_path / "x.parquet", image=[picture(n) for n in range(3)], label=[1, -1, 0])
    for name in ("x.npz", "x.parquet"):
        source = open_source(tmp_path / name)
        assert [item.label for item in source.items()] == ["1", "", "0"]
        assert source.class_to_idx == {"0": 0, "1": 1}


def test_cells_without_bytes_fail_alone(tmp_path: Path) -> None:
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    cells = pa.array([{"bytes": picture(1), "path": None}, {"bytes": None, "path": "/etc/passwd"}, None], kind)
    source = open_source(parquet(tmp_path / "x.parquet", image=cells))
    one, two, three = source.items()
    assert source.read(one) == picture(1)
    with pytest.raises(DiffcleanError, match="paths are not followed"):
        source.read(two)
    with pytest.raises(DiffcleanError, match="holds no image"):
        source.read(three)


def test_rows_of_several_row_groups_are_read_in_any_order(tmp_path: Path) -> None:
    table = pa.table({"image": [picture(n) for n in range(20)], "n": list(range(20))})
    pq.write_table(table, tmp_path / "x.parquet", row_group_size=6)
    source = open_source(tmp_path / "x.parquet")
    items = source.items()
    assert [item.key for item in items][::10] == ["x.parquet#000000000", "x.parquet#000000010"]
    for number in [19, 0, 7, 6, 13, 5, 12, 1]:
        assert source.read(items[number]) == picture(number)
        assert source.about(items[number]) == {"n": number}


def test_a_small_file_that_says_it_has_a_billion_rows_is_refused(tmp_path: Path) -> None:
    nothing = pa.table({"image": pa.nulls(10**6, pa.binary()), "label": pa.nulls(10**6, pa.string())})
    pq.write_table(nothing, tmp_path / "x.parquet")
    with pytest.raises(DiffcleanError, match=r"1,000,000 rows; so many images cannot be in"):
        open_source(tmp_path / "x.parquet").items()


def test_an_image_above_the_limit_fails_alone(tmp_path: Path) -> None:
    path = parquet(tmp_path / "x.parquet", image=[picture(1), picture(2, side=40)])
    source = open_source(path, byte_limit=1000)
    one, two = source.items()
    assert source.read(one) == picture(1)
    with pytest.raises(DiffcleanError, match="the limit is 1000"):
        source.read(two)


def test_a_folder_of_classes_is_no_table_because_one_class_holds_tables(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    parquet(tmp_path / "data" / "train-0.parquet", image=[picture(1)])
    assert format_of(str(tmp_path)) == "parquet"
    (tmp_path / "cat").mkdir()
    assert format_of(str(tmp_path)) == "folder"
    assert format_of("n" * 5000) == "folder"


@pytest.mark.parametrize("name", ["x.parquet", "x.arrow", "x.npz"])
@pytest.mark.parametrize("content", [b"", b"PAR1 not really", bytes(5000)])
def test_what_only_has_the_name_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DiffcleanError, match=r"cannot be read as|holds no images"):
        open_source(tmp_path / name).items()


def test_a_cut_parquet_file_is_refused(tmp_path: Path) -> None:
    path = parquet(tmp_path / "x.parquet", image=[picture(n) for n in range(9)])
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DiffcleanError, match=r"cannot be read as Parquet[\s\S]*leave it out"):
        open_source(path).items()


def test_files_of_several_splits_or_with_other_columns_are_not_mixed(tmp_path: Path) -> None:
    parquet(tmp_path / "train-0.parquet", image=[picture(1)])
    parquet(tmp_path / "test-0.parquet", image=[picture(2)])
    with pytest.raises(DiffcleanError, match=r"several parts of a data set: test, train"):
        open_source(tmp_path)
    parquet(tmp_path / "train-1.parquet", image=[picture(1)], more=[1])
    with pytest.raises(DiffcleanError, match="has other columns than"):
        open_source(tmp_path / "train-*.parquet").items()


def test_a_saved_data_set_cannot_name_files_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "dataset_info.json").write_text("{}")
    (tmp_path / "x.arrow").write_bytes(b"")
    for name in ("../x.arrow", "gone.arrow"):
        (tmp_path / "state.json").write_text(json.dumps({"_data_files": [{"filename": name}]}))
        with pytest.raises(DiffcleanError, match="should name the files"):
            open_source(tmp_path)


def test_no_pickle_in_an_array_file_is_loaded(tmp_path: Path) -> None:
    class Harm:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "harm",))

    objects = np.array([Harm()] * 3, dtype=object)
    np.savez(tmp_path / "x.npz", images=np.zeros((3, 4, 4, 3), np.uint8), labels=objects)
    source = open_source(tmp_path / "x.npz")
    assert {item.label for item in source.items()} == {""}
    np.savez(tmp_path / "y.npz", images=objects)
    with pytest.raises(DiffcleanError, match="no array of images"):
        open_source(tmp_path / "y.npz").items()
    assert pickle.dumps(1)
    assert not (tmp_path / "harm").exists()


def test_a_header_that_promises_more_than_the_file_has_is_refused_unread(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive, archive.open("images.npy", "w") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": (10**6, 1000, 1000, 3)}
        np.lib.format.write_array_header_1_0(file, header)
        file.write(bytes(100))
    with pytest.raises(DiffcleanError, match="more than can be in the file"):
        open_source(tmp_path / "x.npz").items()


def test_arrays_that_cannot_be_told_apart_are_named(tmp_path: Path) -> None:
    one = np.zeros((3, 4, 4, 3), np.uint8)
    np.savez(tmp_path / "x.npz", a=one, b=one)
    with pytest.raises(DiffcleanError, match=r"several arrays that may hold images: a uint8\[3, 4, 4, 3\], b"):
        open_source(tmp_path / "x.npz").items()
    np.savez(tmp_path / "y.npz", a=np.zeros((3, 4), np.float32))
    with pytest.raises(DiffcleanError, match=r"has a float32\[3, 4\][\s\S]*np.savez"):
        open_source(tmp_path / "y.npz").items()


@pytest.mark.parametrize(
    "notes",
    [
        b"[" * 100_000,
        b'{"info": {"features": {"note": ' + b'{"a": ' * 900 + b"1" + b"}" * 900 + b"}}}",
        b'{"info": {"features": {"note": {"_type": "\\ud800"}}}}',
        b'{"info": {"features": [1]}}',
        b'{"info": 5}',
        b"\xff",
    ],
)
def test_notes_on_columns_that_make_no_sense_are_not_followed(notes: bytes, tmp_path: Path) -> None:
    table = pa.table({"image": [picture(1)], "label": [1], "note": ["x"]})
    pq.write_table(table.replace_schema_metadata({b"huggingface": notes}), tmp_path / "x.parquet")
    done = convert(str(tmp_path / "x.parquet"), tmp_path / "y", "huggingface")
    assert done.images == 1
    assert [item.label for item in open_source(tmp_path / "y").items()] == ["1"]
