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
from typing import Any

import click

from diffclean.cli import container
from diffclean.cli.flags import with_flags
from diffclean.display.style import safe, strong
from diffclean.errors import DiffcleanError, ExitCode, Interrupted, UsageError


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
    exit_code: int = ExitCode.DONE
    """The exit code. It is set before anything is printed, since the reader of the output may close the pipe."""


def run(group: click.Group, args: Sequence[str]) -> int:
    """Run the command line, print its result or error, and return the exit code.

    click's own `main` is not used, because it handles broken pipes and interrupts with exit codes of its own.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr] # file names may not be valid text
    output = _guess(args)
    try:
        try:
            with group.make_context("diffclean", list(args), obj=output) as ctx:
                return show_result(group.invoke(ctx), output, args)
        except BaseException as error:
            return show_error(error, output, args)
    except BrokenPipeError:
        # The reader has closed the pipe (`| head`), so what is still buffered cannot be written either.
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return output.exit_code


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
    output.exit_code = result.exit_code
    people = sys.stderr if output.json else sys.stdout
    if not (output.json and (output.quiet or output.log_format == "json")):
        for line in result.lines:
            print(safe(line), file=people)
        people.flush()
    if output.json:
        print_json(result.data)
    if result.exit_code == ExitCode.INTERRUPTED:
        say_error("Interrupted.", resume_hint(output, args), output)
    return result.exit_code


def show_error(error: BaseException, output: Output, args: Sequence[str]) -> int:
    """Print the error that a verb raised: a bug with its traceback, anything else without."""
    if isinstance(error, click.exceptions.Exit):
        return error.exit_code
    if isinstance(error, SystemExit):
        raise error
    known = as_known(error, output, args)
    if known is None:
        if isinstance(error, BrokenPipeError) and not _in_stack(error, "frame.py"):
            raise error
        return show_bug(error, output, args)
    output.exit_code = known.exit_code
    if output.traceback:
        show_traceback(error)
    message = with_flags(known.message, output.command)
    hint = with_flags("\n".join(filter(None, [known.hint, container.hint(error)])), output.command)
    say_error(message, hint, output)
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
    if isinstance(error, OSError) and error.errno in (
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EACCES,
        errno.EPERM,
        errno.EROFS,
    ):
        return DiffcleanError(f"{error.strerror}: {error.filename or 'while writing'}", resume_hint(output, args))
    return None


def resume_hint(output: Output, args: Sequence[str]) -> str:
    """How to continue after a stop; an empty text for verbs that do not resume."""
    return f"To continue, type the same command again: {shlex.join(['diffclean', *args])}" if output.resumes else ""


def show_bug(error: BaseException, output: Output, args: Sequence[str]) -> int:
    """Print the traceback of a bug, and what a report about it should contain."""
    from diffclean.cli import logs
    from diffclean.environment import issue_tracker, versions_line

    output.exit_code = ExitCode.BUG
    message = f"This is a bug in diffclean: {type(error).__name__}: {error}"
    hint = f"Please report it {issue_tracker()}, with the traceback and these lines:\n"
    hint += f"{versions_line()}\ncommand: {shlex.join(['diffclean', *args])}"
    if output.log_format == "json":
        trace = "".join(traceback.format_exception(error))
        print(logs.record_line("error", message, hint=hint, traceback=trace), file=sys.stderr)
    else:
        show_traceback(error)
        say_error(message, hint, output)
    if output.json:
        print_json_error(type(error).__name__, message, hint, ExitCode.BUG)
    return ExitCode.BUG


def show_traceback(error: BaseException) -> None:
    """Print a traceback, which ends with the message of the error."""
    for part in traceback.format_exception(error):
        print(safe(part.rstrip("\n")), file=sys.stderr)


def say_error(message: str, hint: str, output: Output) -> None:
    """Print an error message and its hint on standard error."""
    if output.log_format == "json":
        from diffclean.cli import logs

        print(logs.record_line("error", message, hint=hint), file=sys.stderr)
        return
    print(f"{strong('Error:', sys.stderr)} {safe(message)}", file=sys.stderr)
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


def _in_stack(error: BaseException, file: str) -> bool:
    return any(frame.filename.endswith(file) for frame in traceback.extract_tb(error.__traceback__))


@contextlib.contextmanager
def stdout_kept_pure(wanted: bool) -> Iterator[None]:
    """While the block runs, send what libraries print on standard output, from Python or C, to standard error."""
    if not wanted:
        yield
        return
    with contextlib.redirect_stdout(sys.stderr), contextlib.ExitStack() as stack:
        try:
            real = sys.__stdout__.fileno() if sys.__stdout__ else -1
            target = sys.__stderr__.fileno() if sys.__stderr__ else -1
        except (OSError, ValueError):  # the stream is closed, or was replaced by an object without a descriptor
            real = target = -1
        if real >= 0 and target >= 0:
            sys.__stdout__.flush()  # type: ignore[union-attr] # it has a descriptor, so it is there
            saved = os.dup(real)
            os.dup2(target, real)
            stack.callback(os.close, saved)
            stack.callback(os.dup2, saved, real)
        yield
