"""What others named is shown with nothing in it that steers a terminal: at every door, in one way."""

from __future__ import annotations

import logging
from types import ModuleType

import pytest

from diffclean.cli.board import PlainBoard
from diffclean.cli.logs import logging_to
from diffclean.cli.main import main
from diffclean.cli.progress import PlainProgress
from diffclean.display.style import safe

HOSTILE = (
    "red\x1b[31m bell\x07 c1\x9b2J left\u202egnp.exe mark\u200f bom\ufeff half\ud800 line\u2028 back\r tag\U000e0041"
)


def is_plain(text: str) -> bool:
    return all(character.isprintable() or character in "\n\t" for character in text)


def test_every_kind_of_character_that_deceives_is_spelled_out() -> None:
    assert safe(HOSTILE) == (
        "red\\x1b[31m bell\\x07 c1\\x9b2J left\\u202egnp.exe mark\\u200f bom\\ufeff half\\ud800 line\\u2028 back\\x0d "
        "tag\\U000e0041"
    )
    for kept in ("Straße 猫 é ñ 🐈", "a\tb", "", "nbsp\u00a0here"):
        assert safe(kept) == kept


def test_a_line_within_a_name_cannot_pass_for_a_message() -> None:
    assert (
        safe("x\nError: all your files are gone\n  indented\n") == "x\n  Error: all your files are gone\n  indented\n"
    )


def test_a_name_of_a_megabyte_does_not_fill_the_screen() -> None:
    assert len(safe("a" * 10**6)) < 21_000
    assert safe("a" * 10**6).endswith("(980,000 characters more)")


def test_the_doors(capsys: pytest.CaptureFixture[str]) -> None:
    with logging_to(PlainBoard(), "info", "text"):
        logging.getLogger("diffclean.test").warning("a file %s", HOSTILE)
    progress = PlainProgress()
    progress.begin(f"reading {HOSTILE}", 3)
    progress.end()
    said = capsys.readouterr().err
    assert "\\x1b[31m" in said
    assert is_plain(said)
    name = HOSTILE.replace("\ud800", "\udcff")  # how Python spells a byte that is no text in an argument
    for log_format in ("text", "json"):
        assert main(["evaluate", f"{name}.pt", ".", "--log-format", log_format]) in (1, 2)
        said = capsys.readouterr().err
        assert is_plain(said)
        assert "31m" in said
    assert main(["export", name, "--json", "--traceback"]) in (1, 2)
    both = capsys.readouterr()
    assert is_plain(both.out)
    assert is_plain(both.err)


def test_the_bar_on_a_terminal(tiny: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    from diffclean.display.bar import Bar

    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    bar = Bar()
    bar.begin(f"reading {HOSTILE}", 3)
    bar.end()
    bar.write(safe(f"a file {HOSTILE} :warning: [bold]x[/bold]"))
    assert not {"\x07", "\x9b", "\u202e", "\u200f"} & set(stream.getvalue())
    assert ":warning: [bold]x" in stream.getvalue()
