"""The implementations of `diffclean.progress.Progress` for the command line.

On a terminal progress is a bar; elsewhere it is plain lines or JSON records. Everything goes to standard error. Log
lines go through `Board.write`, so that they do not break the bar.
"""

from __future__ import annotations

import sys
import threading
import time

from diffclean.cli.board import Board, PlainBoard
from diffclean.cli.logs import record_line
from diffclean.display.meter import Meter
from diffclean.display.style import is_terminal, safe
from diffclean.progress import NoProgress, Progress

PLAIN_INTERVAL_S = 10.0


class PlainProgress:
    """Progress as plain lines: at most one every `interval_s` seconds, and one at the end."""

    def __init__(self, interval_s: float = PLAIN_INTERVAL_S) -> None:
        self._interval_s = interval_s
        self._meter: Meter | None = None
        self._said_s = 0.0
        self._lock = threading.Lock()  # batches may be finished by several threads

    def begin(self, what: str, total: int | None, unit: str = "images", done: int = 0) -> None:
        """Start a task."""
        with self._lock:
            self._meter = Meter(what, total, unit, done)
            self._said_s = time.monotonic()

    def advance(self, count: int = 1, **figures: float) -> None:
        """Count `count` more units, and print a line if the interval has passed."""
        with self._lock:
            if self._meter is None:
                return
            self._meter.advance(count, figures)
            if time.monotonic() - self._said_s >= self._interval_s:
                self._said_s = time.monotonic()
                self.say(self._meter, ended=False)

    def end(self) -> None:
        """Print the final line of the task."""
        with self._lock:
            meter, self._meter = self._meter, None
            if meter is not None:
                self.say(meter, ended=True)

    def say(self, meter: Meter, ended: bool) -> None:
        """Print one line."""
        print(safe(meter.line(ended)), file=sys.stderr, flush=True)


class JsonProgress(PlainProgress):
    """Progress as JSON records at the same intervals, for `--log-format json`."""

    def say(self, meter: Meter, ended: bool) -> None:
        """Print one record."""
        print(record_line("info", meter.line(ended), progress=meter.record()), file=sys.stderr, flush=True)


def listener(quiet: bool, log_format: str) -> tuple[Progress, Board]:
    """Choose the progress for this run, and the board that its log lines are printed on."""
    board = PlainBoard()
    if quiet:
        return NoProgress(), board
    if log_format == "json":
        return JsonProgress(), board
    if not is_terminal(sys.stderr):
        return PlainProgress(), board
    from diffclean.display.bar import Bar

    bar = Bar()
    return bar, bar
