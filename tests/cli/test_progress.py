"""Progress on a terminal and without one; colours."""

import io
import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from diffclean.cli import progress
from diffclean.display import meter
from diffclean.display.style import has_color, strong
from diffclean.progress import NoProgress

Capture = pytest.CaptureFixture[str]


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    for module in (progress, meter):
        monkeypatch.setattr(module, "time", made)
    return made


def test_plain_lines_are_rare_and_complete(clock: Clock, capsys: Capture) -> None:
    plain = progress.PlainProgress(interval_s=10)
    plain.begin("variate", 500, done=100)
    for _ in range(30):
        clock.now_s += 1
        plain.advance(10, loss=0.25)
    plain.end()
    plain.end()  # a second one is no line
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "variate: 200/500 images, 10.0 images/s, 30 s left, loss 0.25",
        "variate: 300/500 images, 10.0 images/s, 20 s left, loss 0.25",
        "variate: 400/500 images, 10.0 images/s, 10 s left, loss 0.25",
        "variate: 400/500 images, 10.0 images/s, 30 s in all, loss 0.25",
    ]


def test_unknown_total(clock: Clock, capsys: Capture) -> None:
    plain = progress.PlainProgress(interval_s=1)
    plain.begin("read", None, unit="files")
    clock.now_s += 10
    plain.advance(2)
    assert capsys.readouterr().err == "read: 2 files, 5.0 s/file\n"


def test_the_rate_forgets_a_slow_start(clock: Clock) -> None:
    counted = meter.Meter("x", 10_000, "images", 0)
    clock.now_s += 300  # compilation
    counted.advance(1, {})
    for _ in range(70):
        clock.now_s += 1
        counted.advance(10, {})
    assert counted.rate == pytest.approx(10, rel=0.01)


def test_json_records(clock: Clock, capsys: Capture) -> None:
    listener = progress.JsonProgress(interval_s=1)
    listener.begin("train", 10, unit="steps")
    clock.now_s += 2
    listener.advance(4, loss=0.5)
    record = json.loads(capsys.readouterr().err)
    assert record["progress"] == {
        "task": "train", "done": 4, "total": 10, "unit": "steps", "rate_per_s": 2.0, "left_s": 3.0, "loss": 0.5,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (125, "2 min 05 s"), (7620, "2 h 07 min")]
)
def test_seconds(seconds: float, text: str) -> None:
    assert meter.seconds_text(seconds) == text


def test_who_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(progress.listener(True, "text")[0], NoProgress)
    assert isinstance(progress.listener(False, "json")[0], progress.JsonProgress)
    assert type(progress.listener(False, "text")[0]) is progress.PlainProgress  # pytest is no terminal


@pytest.mark.parametrize("settings", [{}, {"NO_COLOR": "1"}])
def test_the_bar_on_a_terminal(tiny: ModuleType, settings: dict[str, str]) -> None:
    try:
        ours, theirs = pty.openpty()
    except OSError as error:
        pytest.skip(f"no pseudo-terminal on this machine: {error}")
    env = {
        **{key: value for key, value in os.environ.items() if key != "NO_COLOR"},
        "TERM": "xterm-256color",
        **settings,
    }
    code = f"""
import sys
sys.path.insert(0, {str(Path(str(tiny.__file__)).parent)!r})
import tiny_verb, logging
from diffclean.display.bar import Bar
from diffclean.cli.progress import listener
from diffclean.cli.logs import logging_to
bar, board = listener(False, "text")
assert type(bar) is Bar
with logging_to(board, "info", "text"):
    bar.begin("tiny", 4)
    bar.advance(2, loss=0.125)
    tiny_verb.log.warning("take [care]")
    bar.advance(2)
    bar.end()
tiny_verb.main("tiny", "--mode", "user")
"""
    process = subprocess.Popen([sys.executable, "-c", code], stderr=theirs, stdout=subprocess.DEVNULL, env=env)
    os.close(theirs)
    shown = b""
    try:
        while chunk := os.read(ours, 4096):
            shown += chunk
    except OSError:  # Linux says so when the other end is closed
        pass
    os.close(ours)
    assert process.wait() == 0
    text = shown.decode()
    assert "4/4 images" in text
    assert "loss 0.125" in text
    assert "take [care]" in text
    assert "Error:" in text
    assert ("\x1b[1;31m" in text) == ("NO_COLOR" not in settings)
    assert ("\x1b[36m" in text) == ("NO_COLOR" not in settings)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert strong("x", Terminal()) == "\x1b[1;31mx\x1b[0m"
    assert strong("x", io.StringIO()) == "x"
    monkeypatch.setenv("NO_COLOR", "1")
    assert not has_color(Terminal())
    monkeypatch.setenv("NO_COLOR", "")  # set and empty counts as not set
    assert has_color(Terminal())


def test_a_finished_rerun_tells_no_rate(clock: Clock, capsys: Capture) -> None:
    plain = progress.PlainProgress()
    plain.begin("variate", 500, done=500)
    plain.end()
    assert capsys.readouterr().err == "variate: 500/500 images, 0 s in all\n"
