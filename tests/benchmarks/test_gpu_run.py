"""`make gpu`: which commands are carried out, in which order, and what is said in the end. None needs a GPU here."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import gpu_run as gpu
import pytest

ROOT = Path(__file__).parents[2]


def note(work: Path, word: str, more: str = "") -> str:
    """A command that writes a word to a file."""
    return "-c " + shlex.quote(f"open({str(work / 'said.txt')!r}, 'a').write({word + ' '!r}); {more}")


def go(monkeypatch: pytest.MonkeyPatch, work: Path, *arguments: str) -> int:
    monkeypatch.setenv("BENCHMARK_RESULTS", str(work / "results"))
    monkeypatch.setattr(sys, "argv", ["gpu_run.py", "--work", str(work), *arguments])
    return gpu.main()


def test_what_is_done_is_not_done_again_and_what_lacks_its_data_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    commands = [
        gpu.Command("first", note(tmp_path, "first"), ""),
        gpu.Command("needy", note(tmp_path, "needy") + " {train}", ""),
        gpu.Command("broken", note(tmp_path, "broken", "raise SystemExit(1)"), ""),
        gpu.Command("last", note(tmp_path, "last"), ""),
    ]
    monkeypatch.setattr(gpu, "COMMANDS", commands)
    assert go(monkeypatch, tmp_path) == 1
    assert (tmp_path / "said.txt").read_text() == "first broken last "
    assert "Not done: needy (needs --train); broken (failed)." in capsys.readouterr().out
    assert go(monkeypatch, tmp_path, "--train", "somewhere") == 1
    assert (tmp_path / "said.txt").read_text() == "first broken last needy broken "


@pytest.mark.slow
def test_where_the_time_is_over_it_goes_on_another_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second command does not end on its own the first time."""
    short = gpu.Command("short", note(tmp_path, "short"), "")
    wait = f"import os, time; os.path.exists({str(tmp_path / 'on')!r}) or time.sleep(600)"
    monkeypatch.setattr(gpu, "SHORTEST_S", 0)
    monkeypatch.setattr(gpu, "COMMANDS", [short])
    assert go(monkeypatch, tmp_path) == 0
    monkeypatch.setattr(gpu, "COMMANDS", [short, gpu.Command("long", note(tmp_path, "long", wait), "")])
    assert go(monkeypatch, tmp_path, "--minutes", "0.02") == gpu.AGAIN
    assert "The time is over at: long." in capsys.readouterr().out
    (tmp_path / "on").touch()
    assert go(monkeypatch, tmp_path) == 0
    assert (tmp_path / "said.txt").read_text().endswith("long ")
    assert (tmp_path / "said.txt").read_text().count("short") == 1
    assert "All is done." in capsys.readouterr().out


def test_a_star_stands_for_one_file(tmp_path: Path) -> None:
    assert gpu.found("plain") == ["plain"]
    with pytest.raises(SystemExit, match="was the command before it carried out"):
        gpu.found(f"{tmp_path}/t-*.pt")
    (tmp_path / "t-1.pt").touch()
    assert gpu.found(f"{tmp_path}/t-*.pt") == [f"{tmp_path}/t-1.pt"]


@pytest.mark.parametrize("command", gpu.COMMANDS, ids=lambda command: command.name)
def test_every_command_names_a_script_and_options_that_there_are(command: gpu.Command) -> None:
    script, *words = shlex.split(command.line)
    if script == "-m":
        return
    known = "".join((ROOT / name).read_text() for name in (script, "benchmarks/gpu/gpu_harness.py"))
    if "robustness" in script:
        known += (ROOT / "benchmarks/robustness.py").read_text()
    assert [word for word in words if word.startswith("--") and f'"{word}"' not in known] == []
    assert command.knows_limit == ("add_arguments(parser" in known.replace("def add_arguments(parser", ""))
