"""Logging to standard error, as text or as one JSON record on each line."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from diffclean.cli.board import Board
from diffclean.cli.flags import with_flags
from diffclean.display.style import safe, strong

LEVELS = ("debug", "info", "warning", "error")
_COLORS = {"DEBUG": "2", "WARNING": "1;33", "ERROR": "1;31", "CRITICAL": "1;31"}


def record_line(level: str, message: str, **more: Any) -> str:
    """One log record as a line of JSON."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return json.dumps({"time": stamp, "level": level, "message": message, **more}, default=str)


class _BoardHandler(logging.Handler):
    """Prints each formatted record on the board, so that it appears above the progress bar."""

    def __init__(self, board: Board, command: click.Command | None) -> None:
        super().__init__()
        self._board, self._command = board, command

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._board.write(with_flags(self.format(record), self._command))
        except Exception:
            self.handleError(record)


class _Text(logging.Formatter):
    """Formats a record of level INFO as its message alone, and any other with the name of its level."""

    def format(self, record: logging.LogRecord) -> str:
        text = safe(super().format(record))
        if record.levelno == logging.INFO:
            return text
        label = strong(f"{record.levelname.capitalize()}:", sys.stderr, _COLORS.get(record.levelname, "1"))
        return f"{label} {text}"


class _Json(logging.Formatter):
    """Formats a record as one JSON object, with the logger's name and the traceback if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        more: dict[str, Any] = {"logger": record.name}
        if record.exc_info:
            more["traceback"] = self.formatException(record.exc_info)
        return record_line(record.levelname.lower(), record.getMessage(), **more)


@contextmanager
def logging_to(board: Board, level: str, log_format: str, command: click.Command | None = None) -> Iterator[None]:
    """Show the log messages of `diffclean` while the block runs.

    Fields that messages name are shown as the options of `command`. Libraries address developers with the warnings that
    they issue through Python's `warnings`, so these are shown at level debug only.
    """
    handler = _BoardHandler(board, command)
    handler.setFormatter(_Json() if log_format == "json" else _Text())
    ours, libraries = logging.getLogger("diffclean"), logging.getLogger("py.warnings")
    before = [(log, log.level, log.propagate, list(log.handlers)) for log in (ours, libraries)]
    ours.setLevel(level.upper())
    libraries.setLevel(logging.WARNING if level == "debug" else logging.CRITICAL)
    for log in (ours, libraries):
        # If a library configures the root logger, every line would otherwise appear twice.
        log.propagate = False
        log.handlers = [handler]
    logging.captureWarnings(True)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        for log, old_level, propagate, handlers in before:
            log.setLevel(old_level)
            log.propagate, log.handlers = propagate, handlers
