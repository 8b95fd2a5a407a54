"""The group: what it lists, what it imports, what it says about verbs that are not there."""

import json
import subprocess
import sys

import click
import pytest

from diffclean import __version__
from diffclean.cli.main import VERBS, cli, main

LISTED = cli.list_commands(click.Context(cli))
HEAVY = ("torch", "numpy", "rich", "diffusers", "PIL", "pyarrow", "onnx", "onnxruntime", "openvino")


def loaded_by(code: str) -> set[str]:
    """The heavy modules that a fresh interpreter has loaded after `code`."""
    script = f"import sys\n{code}\nprint([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(eval(done.stdout.splitlines()[-1]))


def test_help_imports_no_verb_and_nothing_heavy() -> None:
    script = "from diffclean.cli.main import main, VERBS\nassert main(['--help']) == 0\n"
    script += "assert not [where for where, _ in VERBS.values() if where.split(':')[0] in sys.modules]"
    assert loaded_by(script) == set()


@pytest.mark.parametrize("verb", LISTED)
def test_help_of_a_verb_imports_nothing_heavy(verb: str) -> None:
    assert loaded_by(f"from diffclean.cli.main import main\nassert main([{verb!r}, '--help']) == 0") == set()


def test_help_lists_every_verb_whose_module_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(f"  {name} " in out and VERBS[name][1] in out for name in LISTED)
    assert {"doctor", "completion"} <= set(LISTED)


def test_a_verb_without_a_module_is_not_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(VERBS, "ghost", ("diffclean.cli.ghost:command", "Not there."))
    assert "ghost" not in cli.list_commands(click.Context(cli))


@pytest.mark.parametrize("verb", LISTED)
def test_every_verb_shares_the_options(verb: str) -> None:
    command = cli.get_command(click.Context(cli), verb)
    assert command is not None
    options = {name for param in command.params for name in param.opts}
    wanted = {"--json", "--config", "--log-format", "--log-level", "-v", "-q", "--traceback"}
    assert wanted <= options
    assert command.name == verb


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"diffclean {__version__}\n"


def test_unknown_verb_suggests_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["docter"]) == 2
    assert "Did you mean doctor?" in capsys.readouterr().err


def test_no_verb_shows_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "Verbs:" in capsys.readouterr().out


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    assert "_DIFFCLEAN_COMPLETE" in capsys.readouterr().out


def test_completion_answers_the_shell() -> None:
    env = {"_DIFFCLEAN_COMPLETE": "bash_complete", "COMP_WORDS": "diffclean doc", "COMP_CWORD": "1"}
    command = [sys.executable, "-c", "from diffclean.cli.main import main; main()"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert "doctor" in done.stdout


def test_completion_reads_which_shell_it_is_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHELL", "/usr/bin/fish")
    assert main(["completion", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["shell"] == "fish"
    monkeypatch.setenv("SHELL", "/bin/tcsh")
    assert main(["completion"]) == 2
    assert "SHELL names 'tcsh'" in capsys.readouterr().err
