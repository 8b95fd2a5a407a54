"""Standard output and error that are closed, full, or whose reader goes away; each in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

RunTiny = Callable[..., subprocess.CompletedProcess[str]]
FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.exists(), reason="no device that is always full")


@pytest.fixture
def through_shell(tiny: ModuleType) -> RunTiny:
    """`through_shell("--json", "2>&1 | head -c 1")`: tiny's exit code is in a file `code`, whatever the shell's is."""

    def run(arguments: str, streams: str, folder: Path) -> subprocess.CompletedProcess[str]:
        line = f'{{ "{sys.executable}" "{tiny.__file__}" tiny {arguments}; echo $? > code; }} {streams}'
        return subprocess.run(["sh", "-c", line], cwd=folder, capture_output=True, text=True, check=False)

    return run


def code(folder: Path) -> int:
    return int((folder / "code").read_text())


@pytest.mark.parametrize("mode", ["ok", "many"])
@pytest.mark.parametrize(
    "streams", ["2>&1 | head -c 1", ">&-", "2>&-", "<&- >&- 2>&-", ">/dev/full", ">/dev/full 2>&1"]
)
def test_a_line_that_cannot_be_written_does_not_end_the_work(
    through_shell: RunTiny, tmp_path: Path, streams: str, mode: str
) -> None:
    result = through_shell(f"--mode {mode} -o work", streams, tmp_path)
    assert code(tmp_path) == 0
    assert (tmp_path / "work").exists() == (mode == "many")
    assert "Traceback" not in result.stderr
    assert "Exception ignored" not in result.stderr


@needs_full
def test_lines_that_a_full_disk_took_are_said_to_be_lost(through_shell: RunTiny, tmp_path: Path) -> None:
    result = through_shell("", ">/dev/full", tmp_path)
    assert result.stderr == "Warning: The result could not be written on standard output: No space left on device.\n"


@pytest.mark.parametrize(
    ("streams", "reason"), [(">&-", "it is closed"), pytest.param(">/dev/full", "No space left", marks=needs_full)]
)
def test_a_json_result_that_nobody_got_is_no_success(
    through_shell: RunTiny, tmp_path: Path, streams: str, reason: str
) -> None:
    result = through_shell("--json", streams, tmp_path)
    assert code(tmp_path) == 1
    assert f"Error: The result could not be written on standard output: {reason}" in result.stderr


def test_a_reader_that_has_left_does_not_change_what_the_run_comes_to(tiny: ModuleType) -> None:
    def left(*arguments: str, stderr: int) -> subprocess.CompletedProcess[str]:
        reader, writer = os.pipe()
        os.close(reader)
        command = [sys.executable, str(tiny.__file__), "tiny", *arguments]
        try:
            return subprocess.run(command, stdout=writer, stderr=stderr, text=True, check=False)
        finally:
            os.close(writer)

    for mode, expected in (("ok", 0), ("many", 0), ("user", 1), ("usage", 2), ("some", 3), ("bug", 70)):
        assert left("--mode", mode, "-o", os.devnull, stderr=subprocess.STDOUT).returncode == expected
    told = left("--json", stderr=subprocess.PIPE)
    assert told.returncode == 1
    assert "could not be written on standard output: Broken pipe" in told.stderr


@needs_full
def test_what_a_verb_only_tells_must_arrive(tiny: ModuleType) -> None:
    with FULL.open("w") as full:
        command = [sys.executable, str(tiny.__file__), "other"]
        result = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert result.returncode == 1
    assert "No space left" in result.stderr


def test_what_is_written_is_not_what_libraries_say_where_standard_error_was_closed(
    through_shell: RunTiny, tmp_path: Path
) -> None:
    through_shell("--mode noise -o work", "2>&-", tmp_path)
    assert (tmp_path / "work").read_text() == "of the run\n"


def test_json_stays_pure_where_standard_error_is_closed(through_shell: RunTiny, tmp_path: Path) -> None:
    result = through_shell("--mode noise --json -o work", "2>&-", tmp_path)
    assert json.loads(result.stdout)["steps"] == 25
