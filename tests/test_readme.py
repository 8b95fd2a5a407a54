"""README.md and docs/: tables show what the benchmarks' result files say, commands run, links lead somewhere."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from diffclean.cli.main import VERBS, cli, main

ROOT = Path(__file__).parents[1]
RENDER = ROOT / "benchmarks" / "render.py"
README = (ROOT / "README.md").read_text(encoding="utf-8")
INDEX = (ROOT / "docs/README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMANDS = [shlex.split(line, comments=True)[1:] for line in re.findall(r"^    (diffclean .*)$", INDEX, re.MULTILINE)]

# What makes them small; the words typed are the page's. A class of a few pictures is no data set, so `demo` may find
# that its attack did not fire (1), and no model can be fetched from a hub, nor compiled for a GPU that is not here.
SMALL = {
    "DIFFCLEAN_EPOCHS": "1",
    "DIFFCLEAN_TRAIN_ARCH": "resnet8-cifar",
    "DIFFCLEAN_TENSORBOARD": "0",
    "DIFFCLEAN_DEMO_TRAIN_IMAGES": "10",
    "DIFFCLEAN_DEMO_TEST_IMAGES": "5",
    "DIFFCLEAN_DEMO_SIZE": "24",
    "DIFFCLEAN_PRETRAIN_IMAGES": "4",
    "DIFFCLEAN_PRETRAIN_BATCH": "2",
    "DIFFCLEAN_PRETRAIN_SIZE": "16",
    "DIFFCLEAN_PRETRAIN_CHANNELS": "8",
    "DIFFCLEAN_PRETRAIN_LAYERS": "1",
    "DIFFCLEAN_PRETRAIN_HEADS": "2",
}
ELSEWHERE = {"merge", "completion", "review"}
"""Verbs of other pages; `review` waits for a person."""
ALLOWED = {"demo": (0, 1), "export": (0, 1)}
OF_OTHERS = {"--gpus", "--user", "--compiler"}
"""Options of `docker run` and of a benchmark, which the pages name as well."""


@pytest.mark.slow
def test_the_commands_of_the_index_run_in_their_order(
    draw_photos: Callable[..., Path],
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for folder, count in (("data", 8), ("test", 8), ("trusted", 64)):
        keys = [f"{label}/{number}.png" for label in ("cat", "dog") for number in range(count)]
        draw_photos(tmp_path / folder, keys, width=32, height=32)
    monkeypatch.chdir(tmp_path)
    for name, value in {**SMALL, "DIFFCLEAN_ENGINE": str(tiny_model)}.items():
        monkeypatch.setenv(name, value)
    assert {command[0] for command in COMMANDS} == set(VERBS) - ELSEWHERE
    for command in COMMANDS:
        code = main(command)
        said = capsys.readouterr()
        assert code in ALLOWED.get(command[0], (0,)), f"{command}: {said.err}{said.out}"
    assert (tmp_path / "data-variations/cat/0_v00.png").is_file()
    assert (tmp_path / "t-student.pt").is_file()
    assert (tmp_path / "red-team/poison.json").is_file()
    assert (tmp_path / "run/model/model_index.json").is_file()


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", page.read_text(encoding="utf-8")):
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in [re.sub(r"[^\w -]", "", each).lower().replace(" ", "-") for each in headings], target


def options_of(verb: str) -> set[str]:
    command = cli.get_command(click.Context(cli), verb)
    assert command is not None
    options = [param for param in command.params if isinstance(param, click.Option)]
    return {"--help"}.union(*({*option.opts, *option.secondary_opts} for option in options))


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_commands_and_options_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    fenced = "\n".join(re.findall(r"^```.*?\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    code = re.findall(r"^ {4}.*$", text, re.MULTILINE) + re.findall(r"`([^`\n]+)`", text) + fenced.splitlines()
    for line in code:
        found = re.match(r" *(?:docker run .* )?(?:\.venv/bin/)?diffclean ([a-z]+)\b([^#]*)", line)
        if found:
            verb, rest = found.groups()
            assert verb in VERBS, line
            assert set(re.findall(r"(?<=\s)--[a-z][a-z-]*", rest)) <= options_of(verb), line
    named = set(re.findall(r"`(--[a-z][a-z-]*)", text))
    assert named <= OF_OTHERS.union(*map(options_of, VERBS))


def test_every_page_is_listed() -> None:
    assert [page.name for page in (ROOT / "docs").glob("*.md") if f"({page.name})" not in INDEX] == ["README.md"]


def test_the_readme_takes_a_minute() -> None:
    """Two tables of at most six rows each, and commands that are there once `make` has installed them."""
    tables = re.findall(r"(?:^\|.*\n)+", README, re.MULTILINE)
    assert len(tables) <= 2
    assert all(len(table.splitlines()) <= 2 + 6 for table in tables)
    typed = re.findall(r"^    (\S+) (\S+)", README, re.MULTILINE)
    assert {program for program, _ in typed} <= {"make", ".venv/bin/diffclean", "docker"}
    assert {verb for program, verb in typed if "diffclean" in program} <= set(VERBS)
    tasks = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert {task for program, task in typed if program == "make"} <= set(tasks)


def test_its_tables_are_rendered_from_the_results() -> None:
    found = subprocess.run([sys.executable, str(RENDER), "--check"], capture_output=True, text=True, check=False)
    assert found.returncode == 0, f"A table is stale: python benchmarks/render.py {found.stderr}"
