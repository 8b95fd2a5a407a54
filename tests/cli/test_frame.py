"""The frame: exit codes, what goes to which stream, errors and bugs."""

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from diffclean.errors import ExitCode
from diffclean.results import json_text, plain

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def run_tiny(tiny: ModuleType) -> Callable[..., subprocess.CompletedProcess[str]]:
    def run(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, tiny.__file__, *args]
        return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **env}, check=False)

    return run


def test_the_exit_codes_are_a_promise() -> None:
    promised = {"DONE": 0, "CANNOT": 1, "USAGE": 2, "SOME_FAILED": 3, "GATE_MISSED": 4, "BUG": 70, "INTERRUPTED": 130}
    assert {code.name: code.value for code in ExitCode} == promised


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (["tiny"], ExitCode.DONE),
        (["tiny", "--help"], ExitCode.DONE),
        (["tiny", "--mode", "user"], ExitCode.CANNOT),
        (["tiny", "--mode", "extra"], ExitCode.CANNOT),
        (["tiny", "--mode", "memory"], ExitCode.CANNOT),
        (["tiny", "--mode", "disk"], ExitCode.CANNOT),
        (["tiny", "--mode", "full"], ExitCode.CANNOT),
        (["tiny", "--mode", "temporary"], ExitCode.CANNOT),
        (["tiny", "--mode", "usage"], ExitCode.USAGE),
        (["tiny", "--no-such-option"], ExitCode.USAGE),
        (["tiny", "--steps", "0"], ExitCode.USAGE),
        (["tiny", "a", "b"], ExitCode.USAGE),
        (["tiny", "--mode", "some"], ExitCode.SOME_FAILED),
        (["tiny", "--mode", "bug"], ExitCode.BUG),
        (["tiny", "--mode", "pipe"], ExitCode.BUG),
        (["tiny", "--mode", "interrupted"], ExitCode.INTERRUPTED),
        (["tiny", "--mode", "ctrl-c"], ExitCode.INTERRUPTED),
    ],
)
def test_exit_codes(tiny: ModuleType, capsys: Capture, args: list[str], code: ExitCode) -> None:
    assert tiny.main(*args) == code
    shown = "Traceback" in capsys.readouterr().err
    assert shown == (code == ExitCode.BUG)  # a bug always shows one, a user's error never


def test_an_error_says_what_and_what_to_do(tiny: ModuleType, capsys: Capture) -> None:
    tiny.main("tiny", "--mode", "user")
    captured = capsys.readouterr()
    assert captured.err == "Error: No such engine.\n  Try another.\n"
    assert captured.out == ""


def test_a_full_disk_says_where_to_free_space(tiny: ModuleType, capsys: Capture) -> None:
    tiny.main("tiny", "--mode", "disk")
    assert capsys.readouterr().err.startswith("Error: No space left on device: x.png\n  To continue, type")
    tiny.main("tiny", "--mode", "full")
    err = capsys.readouterr().err
    assert "A file could not be written: No space left on device." in err
    assert "Free some space, also for temporary files" in err
    assert "type the same command again: diffclean tiny --mode full" in err


def test_traceback_is_shown_on_request(tiny: ModuleType, capsys: Capture) -> None:
    tiny.main("tiny", "--mode", "user", "--traceback")
    assert "Traceback" in capsys.readouterr().err


def test_a_bug_says_what_to_report(tiny: ModuleType, capsys: Capture) -> None:
    tiny.main("tiny", "--mode", "bug")
    err = capsys.readouterr().err
    assert "RuntimeError: a broken thing" in err
    assert "report it" in err
    assert "Python 3." in err
    assert "command: diffclean tiny --mode bug" in err


def test_interrupted_says_how_to_resume(tiny: ModuleType, capsys: Capture) -> None:
    tiny.main("tiny", "my photos", "--mode", "interrupted")
    err = capsys.readouterr().err
    assert "Stopped after 3 images." in err
    assert "type the same command again: diffclean tiny 'my photos' --mode interrupted" in err


def test_lines_are_for_people(tiny: ModuleType, capsys: Capture) -> None:
    tiny.main("tiny", "--steps", "3")
    assert capsys.readouterr().out == "3 steps\n"


def test_json_is_alone_on_stdout(run_tiny: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    done = run_tiny("tiny", "--mode", "noise", "--json", "--steps", "3")
    result = json.loads(done.stdout)
    assert result["steps"] == 3
    assert result["nan"] is None
    assert result["sources"]["steps"] == "commandline"
    for text in ("from Python", "from a child", "take care", "3 steps"):
        assert text in done.stderr
    assert "a detail" not in done.stderr


@pytest.mark.parametrize(("mode", "code"), [("user", 1), ("bug", 70), ("ctrl-c", 130)])
def test_json_errors(tiny: ModuleType, capsys: Capture, mode: str, code: int) -> None:
    assert tiny.main("tiny", "--mode", mode, "--json") == code
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["exit_code"] == code
    assert error["message"]


def test_json_error_of_a_command_line_that_does_not_parse(tiny: ModuleType, capsys: Capture) -> None:
    assert tiny.main("tiny", "--json", "--stps", "3") == 2
    captured = capsys.readouterr()
    assert "--steps" in json.loads(captured.out)["error"]["message"]
    assert "tiny --help" in captured.err


def test_quiet_json_is_silent_for_people(run_tiny: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    done = run_tiny("tiny", "--json", "-q")
    assert json.loads(done.stdout)
    assert done.stderr == ""


def test_log_records_are_json(run_tiny: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    done = run_tiny("tiny", "--mode", "noise", "--log-format", "json", "-v")
    records = [json.loads(line) for line in done.stderr.splitlines()]
    assert [(record["level"], record["message"]) for record in records] == [
        ("warning", "take care"),
        ("debug", "a detail"),
    ]


def test_errors_are_json_records_too(run_tiny: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    for args in (["--mode", "user"], ["--mode", "bug"], ["--stps", "3"]):
        done = run_tiny("tiny", *args, "--log-format", "json")
        (record,) = [json.loads(line) for line in done.stderr.splitlines()]
        assert record["level"] == "error"


def test_dry_run_marks_the_result(tiny: ModuleType, capsys: Capture) -> None:
    tiny.main("tiny", "--dry-run", "--json")
    assert json.loads(capsys.readouterr().out)["dry_run"] is True


def test_only_verbs_that_write_have_dry_run(tiny: ModuleType, capsys: Capture) -> None:
    assert tiny.main("other", "--dry-run") == ExitCode.USAGE


def test_help_leaves_out_what_is_for_programmers(tiny: ModuleType, capsys: Capture) -> None:
    tiny.main("tiny", "--help")
    out = capsys.readouterr().out
    assert "Do something small." in out
    assert "not for people" not in out
    assert out.index("--steps") < out.index("Options of every verb") < out.index("--json")


def test_a_reader_that_goes_away_is_no_error(tiny: ModuleType) -> None:
    command = f"{sys.executable} {tiny.__file__} tiny --help | head -c 1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_jsonable() -> None:
    @dataclasses.dataclass
    class Point:
        x: float
        path: Path

    class Color(Enum):
        RED = "red"

    data = {"p": Point(float("inf"), Path("a")), "n": np.float32(0.5), "a": np.arange(2), "c": Color.RED, 1: {2}}
    assert plain(data) == {"p": {"x": None, "path": "a"}, "n": 0.5, "a": [0, 1], "c": "red", "1": [2]}
    assert json.loads(json_text({"key": "caf\udce9.png"})) == {"key": "caf\udce9.png"}  # a file name need not be UTF-8
    with pytest.raises(TypeError, match="no JSON form"):
        plain(object())
