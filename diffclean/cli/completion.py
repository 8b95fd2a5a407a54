"""`diffclean completion bash` prints the script with which a shell completes verbs and options."""

from __future__ import annotations

import click

from diffclean.cli import frame

_WHERE = {
    "bash": 'eval "$(diffclean completion bash)" in ~/.bashrc',
    "zsh": 'eval "$(diffclean completion zsh)" in ~/.zshrc',
    "fish": "diffclean completion fish > ~/.config/fish/completions/diffclean.fish",
}


@frame.verb("completion", epilog="To install it, use the line of your shell: " + "; ".join(_WHERE.values()) + ".")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(run: frame.Run, shell: str) -> frame.Result:
    """Print the script with which your shell completes the verbs and options of diffclean."""
    from click.shell_completion import get_completion_class

    from diffclean.cli.main import cli

    completion = get_completion_class(shell)
    assert completion is not None
    script = completion(cli, {}, "diffclean", "_DIFFCLEAN_COMPLETE").source()
    return frame.Result({"shell": shell, "script": script}, [script])
