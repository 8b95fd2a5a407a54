"""The `diffclean` command. A verb's module is imported when the verb runs, so that `--help` stays quick."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec

import click

from diffclean import __version__
from diffclean.cli import outcome, signals
from diffclean.errors import ExitCode

VERBS: dict[str, tuple[str, str]] = {
    "clean": ("diffclean.cli.clean:command", "Do the whole job: suspects, clean student, report."),
    "variate": ("diffclean.cli.variate:command", "Regenerate a data set with a diffusion model."),
    "distill": ("diffclean.cli.distill:command", "Train a clean student from a suspect teacher."),
    "suspects": ("diffclean.cli.suspects:command", "Find the images that are poisoned."),
    "report": ("diffclean.cli.report:command", "Write the page that tells what was found and done."),
    "review": ("diffclean.cli.review:command", "Keep or drop suspects in a page on this machine."),
    "export": ("diffclean.cli.export:command", "Compile a variation model into engines."),
    "merge": ("diffclean.cli.merge:command", "Join the manifests of a sharded run."),
    "convert": ("diffclean.cli.convert:command", "Write a data set in another format."),
    "train": ("diffclean.cli.train:command", "Train a classifier, such as the teacher."),
    "pretrain": ("diffclean.cli.pretrain:command", "Train a variation model on trusted images."),
    "poison": ("diffclean.cli.poison:command", "Make a poisoned data set for red-team tests."),
    "evaluate": ("diffclean.cli.evaluate:command", "Measure clean accuracy and attack success rate."),
    "doctor": ("diffclean.cli.doctor:command", "Say what this machine can run, and what is missing."),
    "demo": ("diffclean.cli.demo:command", "Show an attack and its cleaning, ending in a report."),
    "completion": ("diffclean.cli.completion:command", "Print the script for shell completion."),
}
"""Maps each verb to the location of its click command and to its line in `diffclean --help`."""


class LazyGroup(click.Group):
    """A click group that lists the verbs from `VERBS` and imports the module of a verb only when the verb is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of the verbs whose module exists."""
        return [name for name, (where, _) in VERBS.items() if find_spec(where.partition(":")[0]) is not None]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command of a verb."""
        if cmd_name not in self.list_commands(ctx):
            return None
        module, _, attribute = VERBS[cmd_name][0].partition(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the verb that was typed; if there is none of that name, suggest the most similar one."""
        name = args[0]
        known = self.list_commands(ctx)
        if name not in known and not name.startswith("-"):
            import difflib

            near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            advice = f"Did you mean {near[0]}?" if near else f"The verbs are: {', '.join(known)}."
            raise click.UsageError(f"There is no verb {name}. {advice}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of verbs without importing them."""
        with formatter.section("Verbs"):
            formatter.write_dl([(name, VERBS[name][1]) for name in self.list_commands(ctx)])


@click.group(
    cls=LazyGroup,
    subcommand_metavar="VERB ...",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Each verb has its own --help. Exit codes, configuration and logs: docs/configuration.md",
)
@click.version_option(__version__, prog_name="diffclean", message="%(prog)s %(version)s")
def cli() -> None:
    """Train on image data you cannot trust: regenerate every image, then distil a clean student."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: the arguments after the program's name; None stands for the arguments of this process.

    Returns:
        The exit code (`diffclean.errors.ExitCode`).
    """
    if "_DIFFCLEAN_COMPLETE" in os.environ:  # the shell asks for completions; click answers and exits
        cli.main(prog_name="diffclean")
    args = sys.argv[1:] if argv is None else argv
    code = int(outcome.run(cli, args or ["--help"]))
    if argv is None and code == ExitCode.INTERRUPTED:
        signals.leave(code)
    return code


if __name__ == "__main__":
    sys.exit(main())
