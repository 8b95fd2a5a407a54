"""Command line > environment > file > default; and all mistakes of a file at once."""

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from diffclean.errors import ExitCode

Capture = pytest.CaptureFixture[str]
Resolve = Callable[..., dict[str, Any]]


@pytest.fixture
def resolve(tiny: ModuleType, capsys: Capture) -> Resolve:
    def run(*args: str) -> dict[str, Any]:
        assert tiny.main("tiny", "--json", *args) == 0
        result: dict[str, Any] = json.loads(capsys.readouterr().out)
        return result

    return run


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], str]:
    def toml(text: str) -> str:
        path = tmp_path / "run.toml"
        path.write_text(text)
        return str(path)

    return toml


def test_precedence(resolve: Resolve, write: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> None:
    levels = [("steps", 25, "default")]
    result = resolve()
    assert (result["steps"], result["sources"]["steps"]) == levels[0][1:]

    shared = write("steps = 1")
    assert resolve("--config", shared)["steps"] == 1
    own = write("steps = 1\n[tiny]\nsteps = 2")
    result = resolve("--config", own)
    assert (result["steps"], result["sources"]["steps"]) == (2, "default_map")

    monkeypatch.setenv("DIFFCLEAN_STEPS", "3")
    assert resolve("--config", own)["steps"] == 3
    monkeypatch.setenv("DIFFCLEAN_TINY_STEPS", "4")
    result = resolve("--config", own)
    assert (result["steps"], result["sources"]["steps"]) == (4, "environment")

    assert resolve("--config", own, "--steps", "5")["steps"] == 5
    assert resolve("--steps", "5", "--config", own)["steps"] == 5


def test_the_file_can_be_named_in_the_environment(
    resolve: Resolve, write: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIFFCLEAN_CONFIG", write("steps = 7"))
    assert resolve()["steps"] == 7


def test_every_kind_of_value(resolve: Resolve, write: Callable[[str], str]) -> None:
    path = write('[tiny]\nsource = "photos"\nout = "x"\nrate = 1\nkeep = true\ntag = ["a b", "c"]\nlog-level = "error"')
    result = resolve("--config", path)
    assert result["source"] == "photos"
    assert result["out"] == "x"
    assert result["poison_rate"] == 1.0  # the option is called --rate, whatever the code calls it
    assert result["keep"] is True
    assert result["tag"] == ["a b", "c"]


def test_flags_in_the_environment(resolve: Resolve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFCLEAN_KEEP", "1")
    assert resolve()["keep"] is True
    assert resolve("--drop")["keep"] is False


def test_json_can_be_asked_for_in_the_environment(
    tiny: ModuleType, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIFFCLEAN_JSON", "1")
    assert tiny.main("tiny", "--mode", "user") == 1
    assert "error" in json.loads(capsys.readouterr().out)


def test_all_mistakes_are_reported_together(tiny: ModuleType, capsys: Capture, write: Callable[[str], str]) -> None:
    path = write(
        'stps = 3\nwidth = 2\n[tiny]\nsteps = 1.5\nout-dir = "x"\nkeep = "yes"\ntag = "a"\n'
        "[other]\nwitdh = 1\nwidth = 'wide'\n[tinny]\na = 1"
    )
    assert tiny.main("tiny", "--config", path) == 2
    err = capsys.readouterr().err
    assert "8 mistakes" in err
    for part in (
        "stps: no verb has this option; did you mean steps?",
        "[tiny] steps: '1.5' is not",
        "[tiny] out-dir: tiny has no such option",
        "[tiny] keep: expected true or false, found 'yes'",
        "[tiny] tag: expected a list, found 'a'",
        "[other] witdh: other has no such option; did you mean width?",
        "[other] width: 'wide' is not a valid integer",
        "[tinny]: there is no such verb; did you mean tiny?",
    ):
        assert part in err


def test_a_shared_key_may_belong_to_another_verb_only(resolve: Resolve, write: Callable[[str], str]) -> None:
    assert resolve("--config", write("width = 32"))["steps"] == 25


def test_a_verb_has_no_config_inside_its_config(tiny: ModuleType, capsys: Capture, write: Callable[[str], str]) -> None:
    assert tiny.main("tiny", "--config", write("config = 'x'")) == 2


@pytest.mark.parametrize("text", ["steps = ", "\x00"])
def test_not_toml(tiny: ModuleType, capsys: Capture, write: Callable[[str], str], text: str) -> None:
    assert tiny.main("tiny", "--config", write(text)) == 2
    assert "is not a TOML file" in capsys.readouterr().err


def test_no_such_file(tiny: ModuleType, capsys: Capture) -> None:
    assert tiny.main("tiny", "--config", "nowhere.toml") == 2
    assert "nowhere.toml" in capsys.readouterr().err


def test_a_mistyped_variable_is_said_with_the_nearest(
    tiny: ModuleType, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DIFFCLEAN_STEPSS", "DIFFCLEAN_OTHER_WIDTH", "DIFFCLEAN_CACHE", "DIFFCLEAN_TINY_STEPS"):
        monkeypatch.setenv(name, "7")
    assert tiny.main("tiny") == ExitCode.DONE
    captured = capsys.readouterr()
    assert captured.out == "7 steps\n"
    said = (
        "Warning: The environment variable DIFFCLEAN_STEPSS is none that diffclean knows: did you mean DIFFCLEAN_STEPS?"
    )
    assert captured.err == f"{said}\n"
