"""`diffclean completion bash` prints the script with which a shell completes verbs and options."""

from __future__ import annotations

import os
from pathlib import PurePath

import click

from diffclean.cli import frame
from diffclean.errors import UsageError

_WHERE = {
    "bash": 'eval "$(diffclean completion bash)" in ~/.bashrc',
    "zsh": 'eval "$(diffclean completion zsh)" in ~/.zshrc',
    "fish": "diffclean completion fish > ~/.config/fish/completions/diffclean.fish",
}


@frame.verb("completion", epilog="To install it, use the line of your shell: " + "; ".join(_WHERE.values()) + ".")
@click.argument("shell", type=click.Choice(list(_WHERE)), required=False)
def command(run: frame.Run, shell: str | None) -> frame.Result:
    """Print the script with which your shell completes the verbs and options of diffclean.

    Without an argument, it is the script for the shell that the environment variable SHELL names.
    """
    shell = shell or _own_shell()
    from click.shell_completion import get_completion_class

    from diffclean.cli.main import cli

    completion = get_completion_class(shell)
    assert completion is not None
    script = completion(cli, {}, "diffclean", "_DIFFCLEAN_COMPLETE").source()
    return frame.Result({"shell": shell, "script": script}, [script])


def _own_shell() -> str:
    found = PurePath(os.environ.get("SHELL", "")).name
    if found in _WHERE:
        return found
    why = f"SHELL names {found!r}" if found else "SHELL is not set"
    raise UsageError(
        f"Your shell is not known here: {why}.", f"Name one of {', '.join(_WHERE)}: diffclean completion bash"
    )
