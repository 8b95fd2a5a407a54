"""Turns what a verb returns or raises into printed output and an exit code."""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
import sys
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

import click

from diffclean.cli import container, streams
from diffclean.cli.flags import with_flags
from diffclean.display.style import safe, strong
from diffclean.errors import DiffcleanError, ExitCode, Interrupted, UsageError

_REFUSED = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)
"""What the system says of a file that the user can see to."""


@dataclass
class Output:
    """How this run prints its results and errors; guessed from the raw arguments until they are parsed."""

    json: bool = False
    traceback: bool = False
    log_format: str = "text"
    quiet: bool = False
    resumes: bool = False
    command: click.Command | None = None
    """The verb that runs, once it is known."""


def run(group: click.Group, args: Sequence[str]) -> int:
    """Run the command line, print its result or error, and return the exit code.

    click's own `main` is not used, because it handles interrupts with an exit code of its own.
    """
    with streams.enduring():
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(AttributeError, ValueError):
                stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr] # names may not be valid text
        output = _guess(args)
        try:
            with group.make_context("diffclean", list(args), obj=output) as ctx:
                return show_result(group.invoke(ctx), output, args)
        except BaseException as error:
            return show_error(error, output, args)


def _guess(args: Sequence[str]) -> Output:
    """Guess from the raw arguments how to print an error about arguments that cannot be parsed."""
    words = list(args)[: list(args).index("--")] if "--" in args else list(args)
    wished = os.environ.get("DIFFCLEAN_JSON", "").lower() in ("1", "true", "yes", "on", "t", "y")
    as_records = "--log-format json" in " ".join(words).replace("=", " ")
    return Output(
        json="--json" in words or wished,
        traceback="--traceback" in words,
        log_format="json" if as_records or os.environ.get("DIFFCLEAN_LOG_FORMAT") == "json" else "text",
    )


def show_result(result: Any, output: Output, args: Sequence[str]) -> int:
    """Print what a verb returned (see `frame.Result`)."""
    people = sys.stderr if output.json else sys.stdout
    if not (output.json and (output.quiet or output.log_format == "json")):
        for line in result.lines:
            print(safe(line), file=people)
        people.flush()
    if output.json:
        print_json(result.data)
    if result.exit_code == ExitCode.INTERRUPTED:
        say("error", "Interrupted.", output, resume_hint(output, args))
    return code_if_told(result.exit_code, output)


def code_if_told(code: ExitCode, output: Output) -> ExitCode:
    """The exit code, if the result has arrived where it was wanted; a line that was lost does not undo the work."""
    lost = streams.lost(sys.stdout)
    if lost is None:
        return code
    closed_or_left = isinstance(lost, BrokenPipeError | streams.ClosedError)  # on purpose, it seems
    matters = output.json or (not output.resumes and not isinstance(lost, BrokenPipeError))
    if matters or not closed_or_left:
        reason = getattr(lost, "strerror", None) or str(lost)
        say("error" if matters else "warning", f"The result could not be written on standard output: {reason}.", output)
    return ExitCode.CANNOT if matters and code in (ExitCode.DONE, ExitCode.SOME_FAILED) else code


def show_error(error: BaseException, output: Output, args: Sequence[str]) -> int:
    """Print the error that a verb raised: a bug with its traceback, anything else without."""
    if isinstance(error, click.exceptions.Exit):
        return error.exit_code
    if isinstance(error, SystemExit):
        raise error
    known = as_known(error, output, args)
    if known is None:
        return show_bug(error, output, args)
    if output.traceback:
        show_traceback(error)
    message = with_flags(known.message, output.command)
    hint = with_flags("\n".join(filter(None, [known.hint, container.hint(error)])), output.command)
    say("error", message, output, hint)
    if output.json:
        print_json_error(type(known).__name__, message, hint, known.exit_code, getattr(known, "problems", None))
    return known.exit_code


def as_known(error: BaseException, output: Output, args: Sequence[str]) -> DiffcleanError | None:
    """Translate an error into the `DiffcleanError` that is shown to the user, or return None for a bug."""
    if isinstance(error, Interrupted):
        return Interrupted(error.message, error.hint or resume_hint(output, args))
    if isinstance(error, DiffcleanError):
        return error
    if isinstance(error, click.ClickException):
        ctx = getattr(error, "ctx", None)
        hint = f"See: {ctx.command_path} --help" if ctx is not None else ""
        return UsageError(error.format_message(), hint)
    if isinstance(error, KeyboardInterrupt | click.Abort):
        return Interrupted("Interrupted.", resume_hint(output, args))
    if (
        isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    ):  # torch has its own; torch is not imported here
        return DiffcleanError(
            f"Out of memory: {error}".rstrip(": "), "Use a smaller --batch-size, or a machine with more memory."
        )
    if isinstance(error, OSError) and (error.errno in _REFUSED or _has_no_place_for_temporaries(error)):
        return _refused(error, resume_hint(output, args))
    return None


def _has_no_place_for_temporaries(error: OSError) -> bool:
    """Whether `tempfile` found no folder that it can write to, which it says without naming a file."""
    return error.errno == errno.ENOENT and not error.filename and "temporary directory" in str(error.strerror)


def _refused(error: OSError, hint: str) -> DiffcleanError:
    """Say what the system refused. An error without a file's name is most often that of a temporary file."""
    if error.filename:
        return DiffcleanError(f"{error.strerror}: {error.filename}", hint)
    where = os.environ.get("TMPDIR", "/tmp")
    free = f"Free some space, also for temporary files ({where}; TMPDIR names another folder for them)."
    hints = [] if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS) else [free]
    return DiffcleanError(f"A file could not be written: {error.strerror}.", "\n".join([*hints, hint]).rstrip())


def resume_hint(output: Output, args: Sequence[str]) -> str:
    """How to continue after a stop; an empty text for verbs that do not resume."""
    return f"To continue, type the same command again: {shlex.join(['diffclean', *args])}" if output.resumes else ""


def show_bug(error: BaseException, output: Output, args: Sequence[str]) -> int:
    """Print the traceback of a bug, and what a report about it should contain."""
    from diffclean.cli import logs
    from diffclean.environment import issue_tracker, versions_line

    message = f"This is a bug in diffclean: {type(error).__name__}: {error}"
    hint = f"Please report it {issue_tracker()}, with the traceback and these lines:\n"
    hint += f"{versions_line()}\ncommand: {shlex.join(['diffclean', *args])}"
    if output.log_format == "json":
        trace = "".join(traceback.format_exception(error))
        print(logs.record_line("error", message, hint=hint, traceback=trace), file=sys.stderr)
    else:
        show_traceback(error)
        say("error", message, output, hint)
    if output.json:
        print_json_error(type(error).__name__, message, hint, ExitCode.BUG)
    return ExitCode.BUG


def show_traceback(error: BaseException) -> None:
    """Print a traceback, which ends with the message of the error."""
    for part in traceback.format_exception(error):
        print(safe(part.rstrip("\n")), file=sys.stderr)


def say(level: str, message: str, output: Output, hint: str = "") -> None:
    """Print a message and its hint on standard error."""
    if output.log_format == "json":
        from diffclean.cli import logs

        print(logs.record_line(level, message, hint=hint), file=sys.stderr)
        return
    style = "1;31" if level == "error" else "1;33"
    print(f"{strong(f'{level.capitalize()}:', sys.stderr, style)} {safe(message)}", file=sys.stderr)
    for line in hint.splitlines():
        print(f"  {safe(line)}", file=sys.stderr)


def print_json_error(kind: str, message: str, hint: str, code: ExitCode, problems: Sequence[str] | None = None) -> None:
    """Print the JSON object of a run that failed; `problems` is the complete list if the message is shortened."""
    error: dict[str, Any] = {"kind": kind, "message": message, "hint": hint, "exit_code": int(code)}
    if problems is not None:
        error["problems"] = list(problems)
    print_json({"error": error})


def print_json(data: Any) -> None:
    """Print the JSON result, which is the only thing on standard output."""
    from diffclean.results import json_text

    print(json_text(data), flush=True)


@contextlib.contextmanager
def stdout_kept_pure(wanted: bool) -> Iterator[None]:
    """While the block runs, send what libraries print on standard output, from Python or C, to standard error."""
    if not wanted:
        yield
        return
    with contextlib.redirect_stdout(sys.stderr), contextlib.ExitStack() as stack:
        real, target = _descriptor(sys.__stdout__, 1), _descriptor(sys.__stderr__, 2)
        if real is not None and target is not None:
            saved = os.dup(real)
            os.dup2(target, real)
            stack.callback(os.close, saved)
            stack.callback(os.dup2, saved, real)
        yield


def _descriptor(stream: TextIO | None, closed: int) -> int | None:
    """That of a stream, `closed` where the stream was closed from the beginning, None for one that is no file."""
    try:
        return closed if stream is None else stream.fileno()
    except (OSError, ValueError):
        return None
