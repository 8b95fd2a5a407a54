from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffclean.data.atomic import WriteError
from diffclean.data.journal import Journal, journal_path, read_journal
from diffclean.data.manifest import Row, Status
from diffclean.data.shard import Shard
from diffclean.errors import DiffcleanError

ROWS = [Row(key=f"cat/{n}%FF%0A\u00e9.jpg", seed=n, error="line\nbreak \u2028 \r") for n in range(3)]


def test_rows_come_back_sorted_and_attempts_in_order(tmp_path: Path) -> None:
    path = journal_path(tmp_path)
    with Journal.open(path) as journal:
        journal.append(ROWS[:2])
        journal.append([])
        journal.append([replace(ROWS[0], status=Status.FAILED)])
        assert len(journal) == 3
    with Journal.open(path) as journal:
        again = replace(ROWS[0], status=Status.FAILED)
        assert list(journal.rows()) == [ROWS[0], again, ROWS[1]] == read_journal(path)
        assert list(journal.latest()) == [again, ROWS[1]]
    assert path.name == "journal.jsonl"
    assert journal_path(tmp_path, Shard(1, 3)).name == "journal-1-of-3.jsonl"


def test_there_may_be_no_journal(tmp_path: Path) -> None:
    assert read_journal(tmp_path / "journal.jsonl") == []


@given(st.data())
def test_torn_at_any_byte_it_goes_on_without_a_trace(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("torn") / "journal.jsonl"
    with Journal.open(path) as journal:
        journal.append(ROWS)
    whole = path.read_bytes()
    cut = data.draw(st.integers(0, len(whole)))
    tail = data.draw(st.sampled_from([b"", b"\0" * 7, b"\0" * 5 + b"\n", b"{}\n", b"\xff\xfe"]))
    complete = whole[:cut].count(b"\n")
    path.write_bytes(whole[:cut] + tail)
    assert read_journal(path) == ROWS[:complete]
    with Journal.open(path) as journal:
        assert list(journal.rows()) == ROWS[:complete]
        journal.append(ROWS[complete:])
    assert path.read_bytes() == whole


def test_a_killed_writer_loses_nothing_that_was_appended(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys; from pathlib import Path\n"
        "from diffclean.data.journal import Journal; from diffclean.data.manifest import Row\n"
        "journal = Journal.open(Path(sys.argv[1])); journal.append([Row(key='a.jpg'), Row(key='b.jpg')])\n"
        'journal._log.append(b\'{"key": "c.j\'); os.kill(os.getpid(), signal.SIGKILL)'
    )
    path = tmp_path / "journal.jsonl"
    assert subprocess.run([sys.executable, "-c", script, str(path)]).returncode == -signal.SIGKILL
    with Journal.open(path) as journal:
        journal.append([Row(key="c.jpg")])
    assert [row.key for row in read_journal(path)] == ["a.jpg", "b.jpg", "c.jpg"]


def test_damage_in_the_middle_is_not_papered_over(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with Journal.open(path) as journal:
        journal.append(ROWS)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b"oops\n" + lines[2])
    with pytest.raises(DiffcleanError, match="line 2"):
        Journal.open(path)
    assert path.read_bytes() == lines[0] + b"oops\n" + lines[2]


def test_a_row_that_does_not_fit_leaves_no_half_line(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with Journal.open(path) as journal:
        journal.append(ROWS)
        whole = path.read_bytes()
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) + 50, hard))
        try:
            with pytest.raises(WriteError, match="larger than is allowed"):
                journal.append(ROWS)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert path.read_bytes() == whole
        journal.append(ROWS[:1])
    assert read_journal(path) == [ROWS[0], *ROWS]


def test_a_link_in_place_of_the_journal(tmp_path: Path) -> None:
    (tmp_path / "precious").write_bytes(b"precious")
    (tmp_path / "journal.jsonl").symlink_to("precious")
    with pytest.raises(DiffcleanError, match="not a plain file"):
        Journal.open(tmp_path / "journal.jsonl")
    assert (tmp_path / "precious").read_bytes() == b"precious"


def test_a_pipe_in_place_of_the_journal_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "journal.jsonl")
    with pytest.raises(DiffcleanError, match="not a plain file"):
        Journal.open(tmp_path / "journal.jsonl")
    with pytest.raises(DiffcleanError, match="not a plain file"):
        read_journal(tmp_path / "journal.jsonl")


def test_what_is_forgotten_counts_no_longer_and_can_be_tried_again(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with Journal.open(path) as journal:
        journal.append([*ROWS, replace(ROWS[1], variant=1)])
        journal.forget([(ROWS[1].key, 0, "the original was replaced"), (ROWS[2].key, 0, "the original is gone")])
        journal.append([replace(ROWS[1], seed=9)])
        expected = [ROWS[0], replace(ROWS[1], seed=9), replace(ROWS[1], variant=1)]
        assert list(journal.rows()) == expected
    assert read_journal(path) == expected
    assert b"the original is gone" in path.read_bytes()


def test_a_new_stamp_holds_for_every_variation_of_an_image(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with Journal.open(path) as journal:
        journal.append([replace(row, source_stamp="10:1") for row in (ROWS[0], replace(ROWS[0], variant=1), ROWS[1])])
        journal.stamp({ROWS[0].key: "10:2"})
        assert [row.source_stamp for row in journal.rows()] == ["10:2", "10:2", "10:1"]
    assert [row.source_stamp for row in read_journal(path)] == ["10:2", "10:2", "10:1"]


def test_a_journal_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    """Its rows had neither the size of the file nor the stamp of the original."""
    values = {"key": "a.jpg", "variant": 0, "output": "a_v00.png", "label": "", "status": "ok", "error": "", "seed": 1}
    values |= {"source_sha256": "ab", "output_sha256": "cd", "width": 1, "height": 1, "source_width": 1}
    (tmp_path / "journal.jsonl").write_text(json.dumps(values | {"source_height": 1, "engine": "e"}) + "\n")
    (row,) = read_journal(tmp_path / "journal.jsonl")
    assert (row.key, row.output_bytes, row.source_stamp) == ("a.jpg", 0, "")


def test_a_journal_larger_than_the_cache_of_its_index_is_sorted_too(tmp_path: Path) -> None:
    """Appended backwards, in more than one lot, so that nothing is in order by chance."""
    path = tmp_path / "journal.jsonl"
    with Journal.open(path) as journal:
        journal.append(Row(key=f"{number:05d}.jpg") for number in reversed(range(5000)))
    with Journal.open(path) as journal:
        assert [row.key for row in journal.rows()] == [f"{number:05d}.jpg" for number in range(5000)]


@pytest.mark.parametrize(
    "line",
    [
        '{"forget": "../x", "variant": 0}',
        '{"forget": "a"}',
        '{"forget": "a", "variant": 1000000000000000000000000000000}',
        '{"forget": "a", "variant": -1}',
        '{"stamp": "a", "is": 3}',
        '{"stamp": "a", "is": "\\ud800"}',
        "[" * 100_000,
        "7",
    ],
)
def test_a_note_that_makes_no_sense_is_damage(tmp_path: Path, line: str) -> None:
    path = tmp_path / "journal.jsonl"
    with Journal.open(path) as journal:
        journal.append(ROWS)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + line.encode() + b"\n" + lines[2])
    with pytest.raises(DiffcleanError, match="line 2"):
        Journal.open(path)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("variant", 10**30),
        ("variant", -1),
        ("width", 10**12),
        ("seed", 2**64),
        ("output_bytes", 2**63),
        ("output_bytes", True),
        ("label", "\ud800"),
        ("engine", None),
        ("status", "perhaps"),
        ("key", "/etc/passwd"),
    ],
)
def test_a_row_that_no_run_writes_is_damage(tmp_path: Path, column: str, value: Any) -> None:
    """Numbers that neither the index nor the manifest can hold among them."""
    path = tmp_path / "journal.jsonl"
    with Journal.open(path) as journal:
        journal.append(ROWS)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + json.dumps(asdict(ROWS[1]) | {column: value}).encode() + b"\n" + lines[2])
    with pytest.raises(DiffcleanError, match="line 2"):
        Journal.open(path)
