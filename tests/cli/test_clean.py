"""`diffclean clean` as it is typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from diffclean.cli.main import main


@pytest.fixture
def words(shapes: tuple[Path, Path], tiny_archs: None, tiny_model: Path, tmp_path: Path) -> list[str]:
    small = ["--arch", "tiny", "--epochs", "1", "--variations", "1", "--engine", str(tiny_model)]
    return ["clean", str(shapes[0]), "-o", str(tmp_path / "job"), "--detector", "spectral", "--no-self-test", *small]


def test_a_dry_run_tells_what_would_be_done_and_writes_nothing(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert "180 images in 3 classes" in told
    assert "Nothing was written." in told
    assert not (tmp_path / "job").exists()


def test_a_job_ends_in_a_page_and_says_where_everything_is(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "--json"]) == 0
    said = capsys.readouterr()
    result = json.loads(said.out)
    assert result["report"] == str(tmp_path / "job" / "report.html")
    assert result["student"] == str(tmp_path / "job" / "student.pt")
    assert result["kept"] + result["suspects"]["suspects"] == result["images"] == 180
    assert "The report:" in said.err


def test_a_missed_gate_has_an_exit_code_of_its_own(
    words: list[str], shapes: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """After one epoch, some images of other classes are taken for the target, with or without a trigger."""
    poisoned = str(tmp_path / "poisoned")
    assert main(["poison", str(shapes[0]), "--attack", "badnets", "--target", "square", "-o", poisoned]) == 0
    measured = ["--test", str(shapes[1]), "--poison", poisoned, "--max-asr", "0"]
    assert main(["clean", poisoned, *words[2:], *measured]) == 4
    assert "MISSED." in capsys.readouterr().out


def test_a_limit_that_nothing_can_measure_is_refused(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "--max-loss", "3"]) == 2
    tested = [word for word in words if word != "--no-self-test"]
    assert main([*tested, "--max-asr", "5"]) == 2
    assert "There is none: it needs 200 images" in capsys.readouterr().err
    assert not (tmp_path / "job").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--budget", "soon"], "'soon' is no time."),
        (["--max-asr", "101"], "--max-asr must be in [0, 100], not 101.0"),
        (["--poison", "poison.json"], "--poison was given, and no test set"),
        (["--teacher-arch", "resnet18"], "--teacher-arch was given, and no teacher."),
    ],
)
def test_what_makes_no_sense_is_a_mistake_of_usage(
    words: list[str], more: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, *more]) == 2
    assert message in capsys.readouterr().err
