"""What the page shows of a list of suspects."""

from __future__ import annotations

import math

from clean_run import suspect_list

from diffclean.data.suspects import JudgedImage, SuspectList
from diffclean.report.charts import HEIGHT, WIDTH, histogram
from diffclean.report.detected import BESIDE, SUREST, UNSUREST, chosen, detection
from diffclean.report.facts import ClassScores


def test_of_many_suspects_the_surest_and_the_least_sure_are_shown() -> None:
    found = suspect_list(500)
    shown, beside = chosen(found)
    chances = sorted((image.probability for image in found.images if image.suspect), reverse=True)
    assert [image.probability for image in shown] == chances[:SUREST] + chances[-UNSUREST:]
    assert len(beside) == BESIDE
    assert not any(image.suspect for image in beside)
    assert sum(image.label == "limit-80" for image in beside) >= BESIDE // 2
    assert chosen(found) == (shown, beside)
    assert chosen(found, seed=2)[1] != beside


def test_scores_are_counted_class_by_class() -> None:
    found = detection(suspect_list(30))
    judged = {judged.name: judged for judged in found.classes}
    assert {name: (sum(each.kept), sum(each.listed)) for name, each in judged.items()} == {
        "crossing": (23, 0),
        "limit-80": (23, 30),
        "stop": (22, 0),
        "yield": (22, 0),
    }
    hit = judged["limit-80"]
    assert hit.lowest_listed is not None
    assert hit.low < hit.lowest_listed < hit.high
    assert judged["stop"].lowest_listed is None


def test_a_list_of_keys_alone_has_no_scores() -> None:
    images = [JudgedImage("a/1.png", "a", math.nan, 1.0, True), JudgedImage("a/2.png", "a", math.nan, 0.0, False)]
    found = detection(SuspectList("", "", "", [], images, {}))
    assert found.classes == (ClassScores("a", 2, 1),)
    assert found.shown[0].score is None
    assert found.shown[0].probability is None


def test_a_histogram_stays_within_its_drawing_and_shows_one_image_beside_a_thousand() -> None:
    drawn = histogram(
        ClassScores("a", 1010, 10, low=0, high=4, kept=(1000, 0, 1, 0), listed=(0, 0, 0, 10), lowest_listed=3)
    )
    assert drawn is not None
    bars = [*drawn.kept, *drawn.listed]
    assert all(bar.x >= 0 and bar.x + bar.width <= WIDTH and 1 < bar.height <= HEIGHT for bar in bars)
    assert drawn.limit == WIDTH * 3 / 4


def test_a_histogram_that_makes_no_sense_is_not_drawn() -> None:
    assert histogram(ClassScores("a", 1, 0)) is None
    assert histogram(ClassScores("a", 1, 0, kept=(1, 2), listed=(1,))) is None
    assert histogram(ClassScores("a", 1, 0, kept=(-1,), listed=(1,))) is None
    assert histogram(ClassScores("a", 1, 0, low=1, high=1, kept=(1,), listed=(0,))) is None
