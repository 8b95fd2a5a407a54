"""The page: one file that is complete without a network or a script, whatever the data are called."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from clean_run import HOSTILE, clean_run

from diffclean.evaluation.metrics import Rate, rate
from diffclean.evaluation.variations import TriggerSurvival
from diffclean.report.facts import (
    ClassScores,
    Detection,
    Facts,
    GateCheck,
    Measured,
    Outcome,
    Regenerated,
    SelfTest,
    SelfTestRow,
    Suspect,
    read_facts,
)
from diffclean.report.page import page, write_page

LARGEST = 5_000_000
SECTIONS = [
    "Accuracy and attack success",
    "Suspects",
    "Scores by class",
    "Before and after",
    "Self-test",
    "What was not tested, and what cannot be known",
    "The data",
    "How it was done",
]
VOID = {"meta", "img", "br", "rect", "line", "circle"}


class Parsed(HTMLParser):
    """What the page holds, and whether its tags fit each other."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.heads: list[str] = []
        self.text = ""
        self.feed(text)
        assert self.open == [], "tags that are not closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] == ["h2"]:
            self.heads.append(data)
        if "style" not in self.open:
            self.text += data


@pytest.fixture(scope="module")
def ten(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clean_run(tmp_path_factory.mktemp("ten"))


def parsed(folder: Path, **changes: object) -> Parsed:
    return Parsed(page(replace(read_facts(folder), **changes), folder))  # type: ignore[arg-type]


def test_the_page_tells_everything_in_its_order(ten: Path) -> None:
    found = parsed(ten)
    assert found.heads == SECTIONS
    for said in (
        "The student hardly reacts to the trigger of badnets",
        "1.3\u202f%",
        "10 of 50 images",
        "limit-80/s00003.png",
        "separation 5.80, limit 3.00",
        "did not work on the teacher, so it shows nothing",
        "trained on research-only data",
        "0.18 EUR",
        "2026-01-31 12:00 UTC",
        "ab" * 32,
    ):
        assert said in found.text
    assert found.tags["img"] == 2 * (10 + 24 + 6) + 1, "pairs, and what the suspects have in common"


def test_the_page_asks_for_nothing_and_runs_nothing(ten: Path) -> None:
    found = parsed(ten)
    assert not found.tags.keys() & {"script", "link", "iframe", "object", "embed", "form", "a", "base"}
    assert not [name for name, _ in found.attributes if name.startswith("on") or name in ("href", "srcset", "action")]
    assert all(value.startswith("data:image/webp;base64,") for name, value in found.attributes if name == "src")
    styles = re.findall(r"<style>(.*?)</style>", page(read_facts(ten), ten), re.DOTALL)
    assert not re.search(r"url\(|@import|@font-face", "".join(styles))
    policy = [value for name, value in found.attributes if name == "content" and "default-src" in value]
    assert policy == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]


def test_names_that_are_html_are_shown_and_do_nothing(tmp_path: Path) -> None:
    folder = clean_run(tmp_path, 20, hostile=True)
    found = parsed(folder)
    assert not found.tags.keys() & {"script", "h1 owned"}
    assert found.tags["h1"] == 1
    assert found.tags["style"] == 1
    assert not [name for name, _ in found.attributes if name.startswith("on")]
    for name in (HOSTILE[0], HOSTILE[1], HOSTILE[4], "gpj.\\u202etxt.exe", "\\x1b[2J\\x07bell"):
        assert name.replace("/", "_") in found.text.replace("/", "_")
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u200e\u200f\u202a-\u202e\u2066-\u2069]", found.text)


def test_a_page_of_ten_thousand_suspects_stays_small(tmp_path: Path) -> None:
    folder = clean_run(tmp_path, 10_000, side=200)
    place = write_page(read_facts(folder), folder)
    assert place.stat().st_size < LARGEST
    found = Parsed(place.read_text())
    assert "48 of them are shown here" in found.text
    assert "Least sure" in found.text


def test_a_page_without_pictures_says_why(ten: Path, tmp_path: Path) -> None:
    facts = read_facts(ten)
    gone = replace(facts.folders, data=replace(facts.folders.data, path="/nowhere", from_here=""))
    found = parsed(ten, folders=gone)
    assert found.text.count("the folder is no longer there") == 10 + 24 + 6
    odd = ClassScores("a", 1, 1, picture="PHNjcmlwdD4=")
    strange = Detection(
        "isolate", 1, 1, classes=(odd,), shown=(Suspect("../../etc/passwd", "a"), Suspect("/etc/passwd", "a"))
    )
    found = parsed(ten, detection=strange, regenerated=None)
    assert found.text.count("it is not in the data set") == 2
    assert found.tags["img"] == 0


def test_a_run_that_could_do_little_says_what_it_could_not_do(tmp_path: Path) -> None:
    facts = Facts("photos", regenerated=Regenerated(99, 1), not_done=("100 classes have one image each.",))
    found = Parsed(page(facts, tmp_path))
    assert found.heads == ["Before and after", SECTIONS[5], "How it was done"]
    assert "99 images were regenerated. No classifier was trained" in found.text
    assert "100 classes have one image each." in found.text


def test_what_was_not_measured_is_said_to_be_so(ten: Path) -> None:
    found = parsed(ten, outcome=Outcome(), self_test=None, detection=None)
    assert "There was no test set, so nobody knows how accurate the student is." in found.text
    assert "There was no self-test" in found.text
    assert "Nobody looked for poisoned images." in found.text


@pytest.mark.parametrize(("triggered", "said"), [(rate(3, 10), 1), (rate(0, 0), 0)])
def test_trigger_survival_that_could_not_be_measured_is_left_out(tmp_path: Path, triggered: Rate, said: int) -> None:
    """With clean labels, no poisoned image is of another class."""
    survival = TriggerSurvival(0.2, triggered, rate(1, 10))
    found = page(Facts("photos", regenerated=Regenerated(20, trigger_survival=survival)), tmp_path)
    assert found.count("of variations of triggered images") == said


def test_how_often_images_land_without_the_trigger_stands_beside_the_attack(ten: Path) -> None:
    before = Measured(rate(9, 10), rate(9, 10))
    after = Measured(rate(8, 10), rate(2, 10), benign_landing=rate(317, 1000))
    found = parsed(ten, self_test=SelfTest((SelfTestRow("sig", 0.1, fired=True, before=before, after=after),), 30))
    assert "The same without the trigger" in found.text
    assert "31.7\u202f%" in found.text


def test_a_missed_limit_is_the_verdict(ten: Path) -> None:
    checks = (GateCheck("max-asr", "blended (self-test)", 5, 64.0, False), GateCheck("max-loss", "CA", 3, None, False))
    found = parsed(ten, gate=checks)
    assert "A limit was missed: --max-asr allows 5, and blended (self-test) is 64.0." in found.text
    assert "CA could not be measured" in found.text
