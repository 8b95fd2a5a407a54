from __future__ import annotations

import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffclean.data.keys import key_from_path
from diffclean.data.manifest import (
    COLUMNS,
    Row,
    Status,
    latest,
    read_manifest_classes,
    read_run_manifest,
    row_from_dict,
    shard_manifests,
    write_manifest,
)
from diffclean.data.shard import Shard
from diffclean.errors import DiffcleanError

ROW = Row(
    key="cat/%FF 1.jpg",
    variant=1,
    output="cat/%FF 1_v01.png",
    label="cat",
    status=Status.OK,
    seed=2**64 - 1,
    source_sha256="ab" * 32,
    output_sha256="cd" * 32,
    width=64,
    height=48,
    source_width=640,
    source_height=480,
    engine="micro:12",
)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    failed = Row(key="b\u00e9.jpg", status=Status.FAILED, error="truncated file")
    path = write_manifest(tmp_path, [ROW, failed], class_to_idx={"dog": 0, "cat": 1})
    assert path == tmp_path / "manifest.parquet"
    assert read_run_manifest(path) == [failed, ROW]
    assert read_manifest_classes(path) == {"dog": 0, "cat": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["manifest.parquet"]


def test_columns_are_those_of_the_design(tmp_path: Path) -> None:
    schema = pq.read_schema(write_manifest(tmp_path, [ROW], class_to_idx={}))
    assert schema.names == list(COLUMNS)
    assert ", ".join(COLUMNS) == (
        "key, variant, output, label, status, error, seed, source_sha256, output_sha256, "
        "width, height, source_width, source_height, engine, source_label"
    )
    assert schema.field("seed").type == pa.uint64()


def test_rows_of_before_there_was_a_label_of_the_source_have_kept_it() -> None:
    old = {name: value for name, value in asdict(ROW).items() if name != "source_label"}
    assert row_from_dict(old).source_label == ROW.label


def test_every_attempt_stays_a_row_and_the_last_one_counts(tmp_path: Path) -> None:
    attempts = [replace(ROW, status=Status.FAILED, error="disk"), ROW, replace(ROW, variant=0)]
    found = read_run_manifest(write_manifest(tmp_path, attempts, class_to_idx={}))
    assert found == [attempts[2], *attempts[:2]]
    assert latest(found) == {(ROW.key, 0): attempts[2], (ROW.key, 1): ROW}


@given(st.permutations(range(8)))
def test_the_file_does_not_depend_on_the_order_of_work(
    tmp_path_factory: pytest.TempPathFactory, order: list[int]
) -> None:
    out = tmp_path_factory.mktemp("order")
    rows = [replace(ROW, key=key_from_path(bytes([97 + n // 2, 200 + n % 2])), variant=n % 3) for n in range(8)]
    expected = write_manifest(out, rows, class_to_idx={"a": 0}).read_bytes()
    assert write_manifest(out, [rows[n] for n in order], class_to_idx={"a": 0}).read_bytes() == expected


def test_an_error_may_quote_a_name_that_is_not_unicode(tmp_path: Path) -> None:
    row = replace(ROW, error="cannot open \udcff.jpg")
    assert read_run_manifest(write_manifest(tmp_path, [row], class_to_idx={}))[0].error == "cannot open \\udcff.jpg"


def test_an_empty_manifest(tmp_path: Path) -> None:
    assert read_run_manifest(write_manifest(tmp_path, [], class_to_idx={})) == []


def test_shards_write_their_own(tmp_path: Path) -> None:
    path = write_manifest(tmp_path, [ROW], class_to_idx={}, shard=Shard(2, 3))
    assert path.name == "manifest-2-of-3.parquet"
    assert shard_manifests(tmp_path) == {Shard(2, 3): path}


def test_a_folder_with_an_equals_sign_adds_no_column(tmp_path: Path) -> None:
    (tmp_path / "engine=x").mkdir()
    assert read_run_manifest(write_manifest(tmp_path / "engine=x", [ROW], class_to_idx={})) == [ROW]


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_has_64_bits(seed: int) -> None:
    with pytest.raises(ValueError, match="seed"):
        Row(key="a", seed=seed)


def test_files_that_are_no_manifest(tmp_path: Path) -> None:
    with pytest.raises(DiffcleanError, match="does not exist"):
        read_run_manifest(tmp_path / "manifest.parquet")
    (tmp_path / "text").write_text("PAR1 no")
    with pytest.raises(DiffcleanError, match="Parquet"):
        read_run_manifest(tmp_path / "text")
    pq.write_table(pa.table({"key": ["a"]}), tmp_path / "other")
    with pytest.raises(DiffcleanError, match="format none"):
        read_run_manifest(tmp_path / "other")
    whole = write_manifest(tmp_path, [ROW], class_to_idx={})
    table = pq.read_table(whole)
    pq.write_table(table.drop_columns(["seed"]), tmp_path / "short")
    with pytest.raises(DiffcleanError, match="expected the columns"):
        read_run_manifest(tmp_path / "short")
    pq.write_table(table.replace_schema_metadata({"diffclean.format_version": "1"}), tmp_path / "classless")
    with pytest.raises(DiffcleanError, match="class_to_idx"):
        read_manifest_classes(tmp_path / "classless")


def rewritten(path: Path, column: str, values: pa.Array, name: str | None = None) -> Path:
    """The same manifest with another column in place of one of its own."""
    table = pq.read_table(path)
    changed = table.set_column(table.schema.get_field_index(column), name or column, values)
    pq.write_table(changed.replace_schema_metadata(table.schema.metadata), path)
    return path


@pytest.mark.parametrize(
    ("column", "values", "said"),
    [
        ("error", pa.array([["a"]]), "error holds list"),
        ("label", pa.array([b"cat"]), "label holds binary"),
        ("width", pa.array([64.0]), "width holds double"),
        ("engine", pa.array([None], pa.null()), "engine holds null"),
        ("output", pa.array([{"a": 1}]), "output holds struct"),
        ("variant", pa.array([2**40]), "variant must be 0 to 2147483647; found 1099511627776"),
        ("source_width", pa.array([-5]), "source_width must be 0 to"),
        ("status", pa.array(["perhaps"]), "not a valid Status"),
        ("seed", pa.array([None], pa.uint64()), "seed must be int"),
        ("seed", pa.array(["7"]), "seed must be int"),
    ],
)
def test_columns_of_another_schema_are_messages(tmp_path: Path, column: str, values: pa.Array, said: str) -> None:
    path = rewritten(write_manifest(tmp_path, [ROW], class_to_idx={}), column, values)
    with pytest.raises(DiffcleanError, match=rf"not a diffclean manifest: .*{said}"):
        read_run_manifest(path)


def test_two_columns_of_the_same_name_are_a_message(tmp_path: Path) -> None:
    path = rewritten(write_manifest(tmp_path, [ROW], class_to_idx={}), "error", pa.array(["x"]), "engine")
    with pytest.raises(DiffcleanError, match="two columns of the same name"):
        read_run_manifest(path)


def test_texts_that_another_program_stored_once_each_are_read(tmp_path: Path) -> None:
    path = write_manifest(tmp_path, [ROW], class_to_idx={})
    assert read_run_manifest(rewritten(path, "label", pa.array(["cat"]).dictionary_encode())) == [ROW]
    assert read_run_manifest(rewritten(path, "error", pa.array([""], pa.large_string()))) == [ROW]


def test_a_long_text_in_every_row_is_not_unfolded(tmp_path: Path) -> None:
    """The text is in the file once, and would be in memory thousands of times."""
    rows = [replace(ROW, key=f"{number}.png", error="x" * 2**18) for number in range(2)]
    path = write_manifest(tmp_path, rows, class_to_idx={})
    table = pq.read_table(path)
    pq.write_table(pa.concat_tables([table] * 200), path, compression="zstd")
    assert path.stat().st_size < 2**20
    with pytest.raises(DiffcleanError, match=r"the texts of 400 rows would take 1\d\d,\d+,\d+ bytes"):
        read_run_manifest(path)


def test_a_small_file_that_unpacks_to_a_large_one_is_refused_unread(tmp_path: Path) -> None:
    path = write_manifest(tmp_path, [replace(ROW, error="x" * 80 * 2**20)], class_to_idx={})
    with pytest.raises(DiffcleanError, match="bytes unpack to 8"):
        read_run_manifest(path)


@pytest.mark.parametrize("classes", [b"[" * 100_000, b'{"\\ud800": 0}', b'{"a": 1e999}', b"[]", b'{"a": 1}'])
def test_damaged_classes_of_a_manifest_are_a_message(tmp_path: Path, classes: bytes) -> None:
    path = write_manifest(tmp_path, [ROW], class_to_idx={})
    table = pq.read_table(path)
    metadata: dict[Any, Any] = {**table.schema.metadata, b"diffclean.class_to_idx": classes}
    pq.write_table(table.replace_schema_metadata(metadata), path)
    with pytest.raises(DiffcleanError, match="class_to_idx"):
        read_manifest_classes(path)


def test_a_pipe_in_place_of_a_manifest_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "manifest.parquet")
    with pytest.raises(DiffcleanError, match="not a plain file"):
        read_run_manifest(tmp_path / "manifest.parquet")
