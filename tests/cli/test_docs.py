"""Every verb has help and a page, and no page is stale (`make docs` renews them)."""

import importlib.util
from pathlib import Path

import click
import pytest

from diffclean.cli.main import cli, main

DOCS = Path(__file__).parents[2] / "docs"


def made_pages() -> dict[str, str]:
    spec = importlib.util.spec_from_file_location("generate_docs", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    pages: dict[str, str] = module.pages()
    return pages


PAGES = made_pages()


@pytest.mark.parametrize("name", PAGES)
def test_page_is_there_and_fresh(name: str) -> None:
    path = DOCS / "verbs" / name
    assert path.is_file(), f"docs/verbs/{name} is missing: run `make docs`"
    assert path.read_text(encoding="utf-8") == PAGES[name], f"docs/verbs/{name} is stale: run `make docs`"


def test_no_page_of_a_verb_that_is_gone() -> None:
    assert {path.name for path in (DOCS / "verbs").glob("*.md")} == set(PAGES)


@pytest.mark.parametrize("verb", cli.list_commands(click.Context(cli)))
def test_every_verb_explains_itself(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb, "--help"]) == 0
    assert f"Usage: diffclean {verb}" in capsys.readouterr().out
    command = cli.get_command(click.Context(cli), verb)
    assert command is not None
    assert command.help
    unexplained = [p.name for p in command.params if isinstance(p, click.Option) and not (p.help or p.hidden)]
    assert not unexplained, "options without a help text"


def test_configuration_page_names_every_exit_code() -> None:
    from diffclean.errors import ExitCode

    text = (DOCS / "configuration.md").read_text(encoding="utf-8")
    assert all(f"| {code.value} |" in text for code in ExitCode)
