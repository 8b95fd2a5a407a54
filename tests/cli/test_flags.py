"""Messages name fields; the command line shows what people type."""

from __future__ import annotations

import click
import pytest

from diffclean.cli.flags import with_flags
from diffclean.cli.main import cli, main


def command(verb: str) -> click.Command:
    found = cli.get_command(click.Context(cli), verb)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("verb", "text", "shown"),
    [
        ("train", "`validation_share` 0.1 of `data`", "--validation-share 0.1 of DATA"),
        ("train", "name another `out`", "name another --out"),
        ("train", "`variate` made them, and `strength` is not asked for here", None),
        ("poison", "`from_` takes all, no `parameters`", "--from takes all, no --parameter"),
        ("clean", "add: `from_step` variations", "add: --from variations"),
        ("suspects", "no `data`", "no DATA"),
        ("variate", "`guidance_interval` 1:0", "--guidance-interval 1:0"),
    ],
)
def test_fields_become_options(verb: str, text: str, shown: str | None) -> None:
    assert with_flags(text, command(verb)) == (shown or text)
    assert with_flags(text, None) == text


def test_an_error_of_the_core_is_shown_with_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["variate", "nowhere", "--strength", "2", "--steps", "0"]) == 2
    said = capsys.readouterr().err
    assert "--strength 2.0 (above 0, at most 1)" in said
    assert "--steps 0" in said
    assert "`" not in said
