"""What `clean` knows, written and read back."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from diffclean.errors import DiffcleanError
from diffclean.evaluation.listed import ListFigures
from diffclean.evaluation.metrics import rate
from diffclean.report.facts import (
    REPORT_FILE,
    ClassScores,
    Detection,
    Facts,
    Measured,
    Outcome,
    Suspect,
    read_facts,
)


def test_facts_are_read_as_they_were_written(tmp_path: Path) -> None:
    figures = ListFigures("badnets", rate(9, 10), rate(9, 9), rate(1, 90), rate(1, 4), 0.99, 0)
    found = Detection(
        "isolate",
        100,
        10,
        classes=(ClassScores("cat", 100, 10, 4.5, 3.0, "its group is sure", kept=(90, 0), listed=(0, 10)),),
        shown=(Suspect("cat/1.png", "cat", 7.5, 0.99, "cat/1_v00.png", poisoned=True),),
        measured=figures,
        settings={"seed": 1, "size": [64, 64]},
    )
    facts = Facts("signs", outcome=Outcome(before=Measured(rate(90, 100))), detection=found, seeds={"run": 1})
    facts.write(tmp_path)
    assert read_facts(tmp_path) == facts


def test_a_number_that_json_does_not_know_comes_back_as_none_of_its_own(tmp_path: Path) -> None:
    Facts("signs", outcome=Outcome(before=Measured(rate(0, 0)))).write(tmp_path)
    outcome = read_facts(tmp_path).outcome
    assert outcome is not None
    assert outcome.before.clean_accuracy is not None
    assert math.isnan(outcome.before.clean_accuracy.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": 5}, "name should be str and is int"),
        ({"gate": [{"name": "max-asr"}]}, r"gate\[0\] lacks of"),
        ({"gate": "none"}, "gate should be list"),
        ({"seeds": {"run": True}}, "seeds.run should be int and is bool"),
        ({"surprise": 1}, "'surprise', which does not belong there"),
        ({"format": "other"}, "no report of diffclean"),
        ({"format_version": 99}, "has format 99"),
    ],
)
def test_a_damaged_report_is_refused_with_the_place_of_the_damage(
    tmp_path: Path, change: dict[str, object], said: str
) -> None:
    path = Facts("signs").write(tmp_path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(DiffcleanError, match=said):
        read_facts(tmp_path)


def test_a_folder_without_a_report_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(DiffcleanError, match=REPORT_FILE):
        read_facts(tmp_path)


def test_a_number_of_hundreds_of_digits_is_damage(tmp_path: Path) -> None:
    path = Facts("signs", outcome=Outcome(before=Measured(rate(1, 2)))).write(tmp_path)
    path.write_text(path.read_text().replace("0.5", "9" * 400))
    with pytest.raises(DiffcleanError, match="too large for a number"):
        read_facts(tmp_path)
