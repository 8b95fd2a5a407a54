"""The verdict claims what was measured, and no more."""

from __future__ import annotations

from dataclasses import replace

import pytest

from diffclean.evaluation.metrics import rate
from diffclean.report.facts import (
    ClassScores,
    Detection,
    Facts,
    Measured,
    Outcome,
    Regenerated,
    SelfTest,
    SelfTestRow,
)
from diffclean.report.verdict import Tone, verdict

KNOWN = Outcome(Measured(rate(900, 1000), rate(950, 1000)), test="./test", attack="sig", fired=True)


def after(asr: int, right: int = 890, landing: int | None = None) -> Facts:
    benign = None if landing is None else rate(landing, 1000)
    student = Measured(rate(right, 1000), rate(asr, 1000), benign_landing=benign)
    return Facts("data", outcome=replace(KNOWN, after=student))


@pytest.mark.parametrize(
    ("facts", "tone", "said"),
    [
        (
            after(12),
            Tone.GOOD,
            "hardly reacts to the trigger of sig: attack success went from 95.0\u202f% to 1.2\u202f%",
        ),
        (after(200), Tone.MIXED, "weaker in the student, but it is not gone"),
        (after(200, landing=190), Tone.GOOD, "hardly reacts"),
        (after(700), Tone.BAD, "still has the backdoor of sig"),
        (after(12, right=700), Tone.MIXED, "hardly reacts"),
        (Facts("data", outcome=replace(after(12).outcome or KNOWN, fired=False)), Tone.PLAIN, "did not work on the"),
        (Facts("data"), Tone.PLAIN, "Nothing was regenerated"),
        (Facts("data", regenerated=Regenerated(1)), Tone.PLAIN, "1 image was regenerated. No classifier was trained"),
        (Facts("data", outcome=Outcome(), detection=Detection("isolate", 9, 0)), Tone.PLAIN, "no proof"),
        (Facts("data", outcome=Outcome(), detection=Detection("isolate", 9, 1)), Tone.MIXED, "1 of 9 images (11.1"),
    ],
)
def test_the_sentence_fits_what_was_measured(facts: Facts, tone: Tone, said: str) -> None:
    found = verdict(facts)
    assert said in found.sentence
    assert found.tone is tone


def test_a_loss_of_accuracy_is_remarked_on() -> None:
    assert any("It lost 20.0 points" in reason for reason in verdict(after(12, right=700)).reasons)
    assert not any("lost" in reason for reason in verdict(after(12)).reasons)


def test_a_class_that_is_listed_for_the_most_part_is_doubted() -> None:
    classes = (ClassScores("cat", 10, 9), ClassScores("dog", 10, 1))
    found = verdict(Facts("data", outcome=Outcome(), detection=Detection("isolate", 20, 10, classes=classes)))
    assert "nearly all of them labelled cat" in found.sentence
    assert not any("nearly all of them" in reason for reason in found.reasons), "it is said once"
    assert any("Most images of cat are listed (9 of 10)" in reason for reason in found.reasons)


@pytest.mark.parametrize(
    ("added", "said"),
    [
        ((0,), "A second pass, which compares the teacher with one that was trained without these, found no more."),
        ((3, 0), "3 of these were added by a second pass"),
        ((1, 2), "The last pass still found some, so there may be more."),
    ],
)
def test_what_a_second_pass_added_is_told(added: tuple[int, ...], said: str) -> None:
    found = Detection("isolate", 20, 10, added=added, classes=(ClassScores("cat", 10, 10),))
    assert any(said in reason for reason in verdict(Facts("data", outcome=Outcome(), detection=found)).reasons)


def test_a_student_of_the_self_test_that_lands_on_the_target_anyway_hardly_reacts() -> None:
    """A student of a few hundred images takes many for the target class, with or without a trigger."""
    strong = Measured(rate(9, 10), rate(9, 10))
    landing = Measured(rate(50, 100), rate(12, 100), benign_landing=rate(10, 100))
    backdoored = Measured(rate(50, 100), rate(40, 100), benign_landing=rate(10, 100))
    rows = (
        SelfTestRow("badnets", 0.1, fired=True, before=strong, after=landing),
        SelfTestRow("sig", 0.1, fired=True, before=strong, after=backdoored),
    )
    told = verdict(replace(after(12), self_test=SelfTest(rows))).reasons
    assert any("1 of 2 attacks" in reason and "40.0\u202f% (sig)" in reason for reason in told)


def test_an_attack_of_the_self_test_that_did_not_fire_does_not_count() -> None:
    strong, weak = Measured(rate(9, 10), rate(9, 10)), Measured(rate(9, 10), rate(0, 10))
    rows = (
        SelfTestRow("badnets", 0.1, fired=True, before=strong, after=weak),
        SelfTestRow("blended", 0.1, fired=True, before=strong, after=strong),
        SelfTestRow("sig", 0.1, fired=False, before=weak, after=weak),
    )
    told = verdict(replace(after(12), self_test=SelfTest(rows))).reasons
    assert any("1 of 2 attacks" in reason and "90.0\u202f% (blended)" in reason for reason in told)
    told = verdict(replace(after(12), self_test=SelfTest(rows[2:]))).reasons
    assert any("shows nothing" in reason for reason in told)
