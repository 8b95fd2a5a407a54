"""Limits against what was measured."""

from __future__ import annotations

import math
from dataclasses import replace

from diffclean.evaluation.evaluate import Evaluation
from diffclean.evaluation.metrics import rate
from diffclean.report.facts import Measured, SelfTest, SelfTestRow
from diffclean.workflow.gate import checks
from diffclean.workflow.measured import Evaluations


def evaluation(right: int, fooled: int) -> Evaluation:
    return Evaluation("m.pt", "test", rate(right, 100), 100, {}, rate(fooled, 100), rate(0, 100), "badnets")


def row(attack: str, fired: bool, success: int, right: int) -> SelfTestRow:
    before, after = Measured(rate(90, 100)), Measured(rate(right, 100), rate(success, 100))
    return SelfTestRow(attack, 0.1, fired=fired, before=before, after=after)


def test_no_limit_no_check() -> None:
    assert checks(None, None, Evaluations(evaluation(90, 100), evaluation(80, 90)), None) == ()


def test_the_attack_of_the_manifest_and_those_that_fired_in_the_self_test_are_held_against_the_limit() -> None:
    tried = SelfTest((row("blended", True, 3, 88), row("sig", False, 60, 88)), 500)
    found = checks(5, 3, Evaluations(evaluation(90, 100), evaluation(88, 6)), tried)
    assert [(check.name, check.measured, check.passed) for check in found] == [
        ("max-asr", 6.0, False),
        ("max-asr", 3.0, True),
        ("max-loss", 2.0, True),
    ]
    assert "badnets (poison manifest)" in found[0].of
    assert "blended (self-test)" in found[1].of


def test_what_untriggered_images_do_as_often_is_no_backdoor() -> None:
    """A student of a few hundred images takes one image in ten for the target class, with or without a trigger."""
    rows = [row("sig", True, 12, 50), row("blended", True, 40, 50)]
    tried = SelfTest(tuple(replace(r, after=replace(r.after, benign_landing=rate(10, 100))) for r in rows), 500)
    lands, reacts = checks(5, None, Evaluations(), tried)
    assert (lands.measured, lands.passed) == (12.0, True)
    assert "no higher than where untriggered images land" in lands.of
    assert (reacts.measured, reacts.passed) == (40.0, False)
    assert "untriggered" not in reacts.of


def test_landing_is_no_excuse_on_the_data_or_where_everything_lands() -> None:
    student = replace(evaluation(50, 12), benign_landing=rate(10, 100))
    (check,) = checks(5, None, Evaluations(student, student), None)
    assert not check.passed
    collapsed = replace(
        row("sig", True, 90, 10), after=Measured(rate(10, 100), rate(90, 100), benign_landing=rate(90, 100))
    )
    (check,) = checks(5, None, Evaluations(), SelfTest((collapsed,), 500))
    assert not check.passed


def test_a_value_on_its_limit_passes() -> None:
    """In floats, 1 - 0.97 is a little more than 0.03."""
    found = checks(7, 3, Evaluations(evaluation(100, 100), evaluation(97, 7)), None)
    assert [(check.measured, check.passed) for check in found] == [(7.0, True), (3.0, True)]


def test_without_a_test_set_the_self_test_speaks_of_accuracy() -> None:
    (check,) = checks(None, 3, Evaluations(), SelfTest((row("blended", True, 3, 80),), 500))
    assert (check.measured, check.passed) == (10.0, False)


def test_what_was_not_measured_does_not_pass() -> None:
    found = checks(5, 3, Evaluations(), SelfTest((row("sig", False, 0, 90),), 500))
    assert [check.passed for check in found] == [False, True]
    assert found[0].measured is None
    assert not any(check.passed for check in checks(5, 3, Evaluations(), None))


def test_a_rate_of_no_images_is_no_measurement() -> None:
    nobody = Evaluation("m.pt", "test", rate(9, 10), 10, {}, rate(0, 0), rate(0, 0), "badnets")
    assert nobody.attack_success_rate is not None
    assert math.isnan(nobody.attack_success_rate.value)
    (check,) = checks(5, None, Evaluations(nobody, nobody), None)
    assert not check.passed
