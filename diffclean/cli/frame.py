"""What all verbs have in common: the decorator `verb`, the shared options, `Run` and `Result`.

A verb is one file with one decorated function:

    import click

    from diffclean.cli import frame

    @frame.verb("variate", writes=True)
    @click.argument("source")
    @click.option("-o", "--out", type=click.Path(), help="Where to write.  [default: SOURCE-variations]")
    @click.option("--steps", type=click.IntRange(min=1), default=25, help="Denoising steps.")
    def command(run: frame.Run, source: str, out: str | None, steps: int) -> frame.Result:
        '''Regenerate a data set. (The first paragraphs are the help text.)'''
        from diffclean.variation.pipeline import variate  # heavy imports in here, never at the top

        if run.dry_run:  # only with writes=True
            return frame.Result({"would_write": out}, [f"Would write {out}."])
        with run.stopping() as stop:  # a threading.Event; leave it out where nothing can stop early
            report = variate(source, out, steps=steps, progress=run.progress, stop=stop)
        return frame.Result({"images": report.done}, [f"{report.done} images."], exit_code=report.exit_code)

`data` must be something that JSON can express; paths, enums, numpy scalars and dataclasses are converted, and NaN
becomes null. Without --json, the `lines` are printed on standard output. With --json, `data` is the only thing on
standard output (what libraries print goes to standard error), and the lines go to standard error. Progress and logs
always go to standard error.

The frame adds --json, --config, --log-format, --log-level, -v, -q, --traceback and, with `writes=True`, --dry-run. It
also reads every option from DIFFCLEAN_<VERB>_<OPTION>, DIFFCLEAN_<OPTION> and the configuration file, and turns what a
verb raises into a message and an exit code. Raise `DiffcleanError(message, hint)` (or `UsageError`) for what a user can
mend. Return `exit_code=ExitCode.SOME_FAILED` or `INTERRUPTED` if there is still a result to show. Let any other
exception escape: it is a bug and is shown with its traceback. The rooms below report progress through
`diffclean.progress` and log with `logging.getLogger(__name__)`. Pass plain keyword arguments to them: click and `Run`
stay in the command line.

To add a verb, write its file, add a line to `main.VERBS` and run `make docs`. In a test, call `main(["variate", ...])`
and use pytest's `capsys`.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any

import click

from diffclean.cli import config, logs, outcome, signals
from diffclean.cli.defaults import take_defaults
from diffclean.cli.progress import listener
from diffclean.errors import ExitCode
from diffclean.progress import NoProgress, Progress
from diffclean.results import plain

SHARED = ("json", "config", "log_format", "log_level", "verbose", "quiet", "traceback", "dry_run")


@dataclass(frozen=True)
class Result:
    """The result of a verb: `data` for machines (a dictionary or a dataclass) and `lines` of text for people."""

    data: Any
    lines: list[str] = field(default_factory=list)
    exit_code: ExitCode = ExitCode.DONE


@dataclass(frozen=True)
class Run:
    """What a verb needs to know about this run, apart from its own options.

    `options` is the resolved configuration (the verb's own arguments and options). `sources` names the origin of each
    value: commandline, environment, default_map (the file) or default.
    """

    verb: str
    options: dict[str, Any] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    progress: Progress = field(default_factory=NoProgress)
    json: bool = False
    dry_run: bool = False

    def stopping(self) -> AbstractContextManager[threading.Event]:
        """A context with an event that the first Ctrl-C or SIGTERM sets; a second one interrupts at once."""
        return signals.stopping()


class Verb(click.Command):
    """A click command with the shared options, whose function takes a `Run` and returns a `Result`."""

    def __init__(self, *args: Any, writes: bool = False, door: Callable[..., Any] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.writes, self.door = writes, door
        if door is not None:
            take_defaults(self, door)
        self.params += shared_options(writes)
        config.name_environment(self)

    def invoke(self, ctx: click.Context) -> Result:
        """Run the verb with logging, progress and signals in place."""
        shared = {name: ctx.params.pop(name, None) for name in SHARED}
        level = "error" if shared["quiet"] else "debug" if shared["verbose"] else shared["log_level"]
        said = ctx.ensure_object(outcome.Output)
        said.json, said.traceback, said.log_format = shared["json"], shared["traceback"], shared["log_format"]
        said.quiet, said.resumes, said.command = bool(shared["quiet"]), self.writes, self
        progress, board = listener(bool(shared["quiet"]), shared["log_format"])
        sources = {name: ctx.get_parameter_source(name) for name in ctx.params}
        run = Run(
            verb=self.name or "",
            options=dict(ctx.params),
            sources={name: source.name.lower() for name, source in sources.items() if source is not None},
            progress=progress,
            json=shared["json"],
            dry_run=bool(shared["dry_run"]),
        )
        assert self.callback is not None
        with outcome.stdout_kept_pure(said.json), signals.ending_at_the_second(), signals.sigterm_interrupts():
            try:
                with logs.logging_to(board, level, shared["log_format"], self):
                    config.warn_of_unknown(ctx)
                    result = ctx.invoke(self.callback, run, **ctx.params)
            finally:
                progress.end()  # a bar that is still drawn would overwrite the message that follows
        if not isinstance(result, Result):
            raise TypeError(f"The verb {self.name} returned {type(result).__name__} and not a Result.")
        if run.dry_run:
            result = replace(result, data=plain(result.data) | {"dry_run": True})
        return result

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the verb's own options first, then those of every verb."""
        own: list[tuple[str, str]] = []
        shared: list[tuple[str, str]] = []
        for param in self.get_params(ctx):
            if isinstance(param, click.Argument):  # the usage line and the text name them
                continue
            if (record := param.get_help_record(ctx)) is not None:
                (shared if param.name in (*SHARED, "help") else own).append(record)
        for title, records in (("Options", own), ("Options of every verb", shared)):
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


def shared_options(writes: bool) -> list[click.Parameter]:
    """New copies of the options that every verb has."""
    path = click.Path(exists=True, dir_okay=False)
    dry_run = [click.Option(["--dry-run"], is_flag=True, help="Say what would be done, and write nothing.")]
    return [
        *(dry_run if writes else []),
        click.Option(["--json"], is_flag=True, help="Print one JSON result on standard output."),
        click.Option(
            ["--config"],
            type=path,
            is_eager=True,
            callback=config.read_config,
            metavar="FILE.toml",
            help="Read options from this file; the command line and DIFFCLEAN_* variables take precedence over it.",
        ),
        click.Option(
            ["--log-format"], type=click.Choice(["text", "json"]), default="text", help="The form of log lines."
        ),
        click.Option(
            ["--log-level"],
            type=click.Choice(list(logs.LEVELS)),
            default="info",
            help="The least severe log lines to show.",
        ),
        click.Option(["-v", "--verbose"], is_flag=True, help="Show all log lines, as --log-level debug does."),
        click.Option(["-q", "--quiet"], is_flag=True, help="Show errors only, and no progress."),
        click.Option(["--traceback"], is_flag=True, help="Print the traceback of every error."),
    ]


def verb(
    name: str, *, writes: bool = False, door: Callable[..., Any] | None = None, **settings: Any
) -> Callable[[Callable[..., Result]], Verb]:
    """Turn a function into a verb.

    Args:
        name: the name of the verb on the command line.
        writes: whether the verb writes files; it then takes --dry-run, and the same command resumes it.
        door: the Python function that does the same; the options take their defaults from its signature.
        settings: further arguments of `click.Command` (epilog, short_help).
    """

    def decorate(function: Callable[..., Result]) -> Verb:
        text = inspect.cleandoc(function.__doc__ or "")
        for section in ("\nArgs:", "\nReturns:", "\nRaises:"):  # these are for programmers, not for users
            text = text.split(section)[0]
        settings.setdefault("help", text.strip())
        context = {"show_default": True, "max_content_width": 100, "help_option_names": ["-h", "--help"]}
        made = click.command(name, cls=Verb, writes=writes, door=door, context_settings=context, **settings)(function)
        assert isinstance(made, Verb)
        return made

    return decorate
