"""`import diffclean as dc`: what it offers, that it costs nothing, and that the command line has the same defaults."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import click
import pytest

import diffclean as dc
from diffclean.cli.defaults import as_typed
from diffclean.cli.frame import SHARED
from diffclean.cli.main import VERBS, cli

FUNCTIONS = {"suspects": "find_suspects"} | {
    verb: verb
    for verb in ("clean", "convert", "variate", "train", "distill", "evaluate", "poison", "report", "export", "doctor")
}
"""Verb -> function."""
OTHER_NAMES = {"source": "data", "parameter": "parameters"}
FORMER = {"data", "originals"}
"""Hidden options of `suspects`, which Python never had."""
ASKED = {"yes"}
"""Options of `clean` that are about the terminal."""


def test_all_that_is_offered_is_there() -> None:
    assert set(dc.__all__) <= set(dir(dc))
    for name in dc.__all__:
        assert getattr(dc, name).__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'bogus'"):
        dc.bogus  # noqa: B018


def test_importing_it_loads_nothing_else() -> None:
    code = "import diffclean, sys; print(sorted({m.split('.')[0] for m in sys.modules} & {'numpy', 'torch', 'click', "
    code += "'rich', 'PIL', 'pandas'}), [m for m in sys.modules if m.startswith('diffclean.')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] []"


def test_a_room_of_the_same_name_does_not_hide_a_function() -> None:
    """Python binds the packages `diffclean.export` and `diffclean.doctor` as attributes when they are imported."""
    code = "import diffclean as dc, diffclean.export.build, diffclean.doctor; assert callable(dc.export); "
    code += (
        "assert callable(dc.doctor); from diffclean.export import build; print(build.__name__, dc.export.__module__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["diffclean.export.build", "diffclean.api.export"]


@pytest.mark.parametrize("verb", FUNCTIONS)
def test_the_command_line_and_the_door_take_the_same_with_the_same_defaults(verb: str) -> None:
    command = cli.get_command(click.Context(cli), verb)
    assert command is not None
    arguments = inspect.signature(getattr(dc, FUNCTIONS[verb])).parameters
    options = {
        OTHER_NAMES.get(str(param.name), str(param.name)) if verb in ("suspects", "poison") else str(param.name): param
        for param in command.params
        if param.name not in SHARED
        and not (verb == "suspects" and param.name in FORMER)
        and not (verb == "clean" and param.name in ASKED)
    }
    assert options.keys() | {"progress", "stop"} == arguments.keys() | {"progress", "stop"}
    for name, param in options.items():
        default = arguments[name].default
        if param.required or default in (None, inspect.Parameter.empty):
            assert not isinstance(param.default, str | int | float) or isinstance(param.default, bool), name
        else:
            assert param.default in (default, as_typed(default)), name


def test_the_settings_of_variate_have_the_same_defaults() -> None:
    """Where an argument is None, the engine's own default is taken."""
    from diffclean.api.variate import settings_of
    from diffclean.data.decode import Limits
    from diffclean.variation.settings import Settings

    arguments = inspect.signature(dc.variate).parameters
    own = {name: arguments[name].default for name in vars(Settings()) if name in arguments}
    assert settings_of(**own) == Settings()
    assert Settings().pixel_limit == Limits().pixels


def test_every_verb_that_makes_something_has_its_function() -> None:
    assert set(VERBS) - set(FUNCTIONS) == {"merge", "pretrain", "review", "demo", "completion"}


def test_type_checkers_may_believe_it() -> None:
    assert (Path(dc.__file__).parent / "py.typed").is_file()
