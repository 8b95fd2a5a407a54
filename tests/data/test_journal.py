from __future__ import annotations

import resource
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffclean.data.atomic import WriteError
from diffclean.data.journal import Journal, journal_path, read_journal
from diffclean.data.manifest import Row, Status
from diffclean.data.shard import Shard
from diffclean.errors import DiffcleanError

ROWS = [Row(key=f"cat/{n}%FF%0A\u00e9.jpg", seed=n, error="line\nbreak \u2028 \r") for n in range(3)]


def test_rows_come_back_in_order(tmp_path: Path) -> None:
    path = journal_path(tmp_path)
    with Journal.open(path) as journal:
        journal.append(ROWS[:2])
        journal.append([])
        journal.append([replace(ROWS[0], status=Status.FAILED)])
        assert len(journal.rows()) == 3
    with Journal.open(path) as journal:
        assert journal.rows() == [*ROWS[:2], replace(ROWS[0], status=Status.FAILED)] == read_journal(path)
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
        assert journal.rows() == ROWS[:complete]
        journal.append(ROWS[complete:])
    assert path.read_bytes() == whole


def test_a_killed_writer_loses_nothing_that_was_appended(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys; from pathlib import Path\n"
        "from diffclean.data.journal import Journal; from diffclean.data.manifest import Row\n"
        "journal = Journal.open(Path(sys.argv[1])); journal.append([Row(key='a.jpg'), Row(key='b.jpg')])\n"
        'os.write(journal._descriptor, b\'{"key": "c.j\'); os.kill(os.getpid(), signal.SIGKILL)'
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
    assert read_journal(path) == [*ROWS, ROWS[0]]


def test_a_link_in_place_of_the_journal(tmp_path: Path) -> None:
    (tmp_path / "precious").write_bytes(b"precious")
    (tmp_path / "journal.jsonl").symlink_to("precious")
    with pytest.raises(WriteError):
        Journal.open(tmp_path / "journal.jsonl")
    assert (tmp_path / "precious").read_bytes() == b"precious"
