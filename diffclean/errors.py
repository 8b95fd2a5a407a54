"""Exit codes, and the errors that a user can mend.

A `DiffcleanError` is a user's mistake or a machine's limit: it is printed without a traceback. Anything else that
escapes is a bug and is printed with one (exit code 70).
"""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What `diffclean` tells the shell."""

    DONE = 0
    """Everything asked for was done."""
    CANNOT = 1
    """It cannot be done; the message says what to do about it."""
    USAGE = 2
    """The command line or a configuration file is wrong."""
    SOME_FAILED = 3
    """Finished, but some items failed; they are listed."""
    GATE_MISSED = 4
    """Finished, but the outcome missed a limit that was set (`clean --max-asr`, `--max-loss`)."""
    BUG = 70
    """A bug in diffclean."""
    INTERRUPTED = 130
    """Stopped by Ctrl-C or SIGTERM; the same command resumes."""


class DiffcleanError(Exception):
    """Something the user can mend.

    Args:
        message: what was found and what was expected.
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


class Interrupted(DiffcleanError):  # not a failure
    """Stopped on request (Ctrl-C, SIGTERM) after finishing what was in flight."""

    exit_code = ExitCode.INTERRUPTED
