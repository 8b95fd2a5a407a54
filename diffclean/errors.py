"""The exit codes, and the errors that a user can correct.

A `DiffcleanError` is a user's mistake or a limit of the machine, and is printed without a traceback. Any other
exception that escapes is a bug, and is printed with a traceback (exit code 70).
"""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """The exit codes of the `diffclean` command."""

    DONE = 0
    """Everything asked for was done."""
    CANNOT = 1
    """The work cannot be done; the message says what to do about it."""
    USAGE = 2
    """The command line or a configuration file is wrong."""
    SOME_FAILED = 3
    """The work is finished, but some items failed; they are listed."""
    GATE_MISSED = 4
    """The work is finished, but its outcome missed a limit that was set (`clean --max-asr`, `--max-loss`)."""
    BUG = 70
    """There is a bug in diffclean."""
    INTERRUPTED = 130
    """The work was stopped by Ctrl-C or SIGTERM; the same command continues it."""


class DiffcleanError(Exception):
    """An error that the user can correct.

    Args:
        message: what was found, and what was expected.
        hint: what to type, or where to look.
    """

    exit_code = ExitCode.CANNOT

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class UsageError(DiffcleanError):
    """The command line or a configuration file asks for something that makes no sense."""

    exit_code = ExitCode.USAGE


class MissingExtraError(DiffcleanError):
    """An optional library is not installed."""

    def __init__(self, library: str, extra: str) -> None:
        super().__init__(f"{library} is not installed.", f"pip install 'diffclean[{extra}]'")
        self.args = (library, extra)  # what an error is made of again in another process


class Interrupted(DiffcleanError):  # not a failure
    """The work was stopped on request (Ctrl-C, SIGTERM), after the current batch was finished."""

    exit_code = ExitCode.INTERRUPTED
