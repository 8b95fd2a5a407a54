from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

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
