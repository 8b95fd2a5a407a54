"""`diffclean report` as it is typed. The page itself is in report/test_page."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from clean_run import clean_run
from suspect_set import draw_suspects, vary_suspects

from diffclean.cli.main import main
from diffclean.data.hashes import sha256_of
from diffclean.errors import ExitCode
from diffclean.report.facts import read_facts

Capture = pytest.CaptureFixture[str]


def test_the_page_of_a_clean_run(tmp_path: Path, capsys: Capture) -> None:
    folder = clean_run(tmp_path)
    assert main(["report", str(folder), "--dry-run"]) == ExitCode.DONE
    assert not (folder / "report.html").exists()
    capsys.readouterr()
    assert main(["report", str(folder), "--json"]) == ExitCode.DONE
    said = json.loads(capsys.readouterr().out)
    assert said["page"] == str(folder / "report.html")
    assert said["tone"] == "good"
    assert said["verdict"] in (folder / "report.html").read_text()
    assert main(["report", str(folder), "-o", str(tmp_path / "pages" / "a.html")]) == ExitCode.DONE
    assert (tmp_path / "pages" / "a.html").read_bytes() == (folder / "report.html").read_bytes()


def test_a_list_that_was_changed_after_the_run_is_told(tmp_path: Path, capsys: Capture) -> None:
    folder = clean_run(tmp_path)
    facts = read_facts(folder)
    replace(facts, hashes={"suspects.json": sha256_of(folder / "suspects.json")}).write(folder)
    assert main(["report", str(folder)]) == ExitCode.DONE
    assert "was changed" not in capsys.readouterr().out
    (folder / "suspects.json").write_text('["limit-80/s00001.png"]')
    assert main(["report", str(folder)]) == ExitCode.DONE
    assert "it holds 1 image now" in (folder / "report.html").read_text()


def test_a_run_is_moved_with_its_data_and_still_has_its_pictures(tmp_path: Path, capsys: Capture) -> None:
    before = clean_run(tmp_path / "here")
    assert main(["report", str(before)]) == ExitCode.DONE
    page = (before / "report.html").read_bytes()
    (tmp_path / "here").rename(tmp_path / "there")
    assert main(["report", str(tmp_path / "there" / "signs-clean")]) == ExitCode.DONE
    assert (tmp_path / "there" / "signs-clean" / "report.html").read_bytes() == page


def test_the_page_of_variations(tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "out"
    out.mkdir()
    vary_suspects(draw_suspects(tmp_path / "data"), out)
    assert main(["report", str(out)]) == ExitCode.DONE
    assert "300 images were regenerated." in capsys.readouterr().out
    assert (out / "report.html").read_text().count("<figure>") == 24


def test_what_cannot_be_reported(tmp_path: Path, draw_photos: Callable[..., Path], capsys: Capture) -> None:
    assert main(["report", str(tmp_path / "nowhere")]) == ExitCode.CANNOT
    assert main(["report", str(tmp_path)]) == ExitCode.CANNOT
    assert "neither report.json nor run.json" in capsys.readouterr().err
    folder = clean_run(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    assert main(["report", str(folder), "-o", str(tmp_path / "notes.txt")]) == ExitCode.CANNOT
    assert (tmp_path / "notes.txt").read_text() == "mine"
    (folder / "report.json").write_text("{")
    assert main(["report", str(folder)]) == ExitCode.CANNOT
    assert "is damaged" in capsys.readouterr().err
