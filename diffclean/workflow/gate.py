"""The gate: limits that the results must meet, so that a weekly job can be stopped."""

from __future__ import annotations

import math

from diffclean.evaluation.metrics import Rate
from diffclean.report.facts import GateCheck, SelfTest
from diffclean.workflow.measured import Evaluations


def checks(
    max_asr: float | None, max_loss: float | None, measured: Evaluations, self_test: SelfTest | None
) -> tuple[GateCheck, ...]:
    """Compare the measurements with the limits.

    An attack of the self-test that did not work on its teacher shows nothing and is not counted. Its students
    are weak, for they learn from a sample: an attack success rate that is no higher than where untriggered images land
    on the target passes (`Measured.only_lands`). On the data themselves there is no such excuse. A limit whose value
    could not be measured at all counts as missed.

    Args:
        max_asr: the highest attack success rate, in percent. None: no limit.
        max_loss: the largest loss of clean accuracy, in percentage points. None: no limit.
        measured: the measurements on the test set.
        self_test: the result of the self-test. None: there was none.
    """
    found = []
    if max_asr is not None:
        found += _on_success(max_asr, measured, self_test)
    if max_loss is not None:
        found += _on_loss(max_loss, measured, self_test)
    return tuple(found)


def _on_success(limit: float, measured: Evaluations, self_test: SelfTest | None) -> list[GateCheck]:
    what, student = "the attack success rate", measured.student
    found = []
    if student is not None and _is_known(student.attack_success_rate):
        found.append(_success(f"{what}, {student.attack} (poison manifest)", student.attack_success_rate, limit))
    for row in self_test.rows if self_test is not None else ():
        if row.fired and _is_known(row.after.attack_success_rate):
            of = f"{what}, {row.attack} (self-test)"
            found.append(_success(of, row.after.attack_success_rate, limit, lands=row.after.only_lands))
    return found or [GateCheck("max-asr", what, limit, None, passed=False)]


def _success(of: str, rate: Rate | None, limit: float, lands: bool = False) -> GateCheck:
    assert rate is not None
    value = 100 * rate.value
    if lands and not _within(value, limit):
        of += ", which is no higher than where untriggered images land on the target,"
    return GateCheck("max-asr", of, limit, round(value, 2), _within(value, limit) or lands)


def _within(value: float, limit: float) -> bool:
    """Whether a value is no higher than its limit; 100 - 97 in floats may be a little more than 3."""
    return round(value, 9) <= limit


def _on_loss(limit: float, measured: Evaluations, self_test: SelfTest | None) -> list[GateCheck]:
    what, values = "the loss of clean accuracy", _losses(measured, self_test)
    if not values:
        return [GateCheck("max-loss", what, limit, None, passed=False)]
    return [
        GateCheck("max-loss", f"{what}, {of}", limit, round(value, 2), _within(value, limit))
        for of, value in values.items()
    ]


def _losses(measured: Evaluations, self_test: SelfTest | None) -> dict[str, float]:
    """Return the loss on the test set or, without a test set, in the self-test, which trains on fewer images."""
    if measured.teacher is not None and measured.student is not None:
        return {"on the test set": _lost(measured.teacher.clean_accuracy, measured.student.clean_accuracy)}
    return {
        f"{row.attack} (self-test)": _lost(row.before.clean_accuracy, row.after.clean_accuracy)
        for row in (self_test.rows if self_test is not None else ())
        if row.before.clean_accuracy is not None and row.after.clean_accuracy is not None
    }


def _lost(before: Rate, after: Rate) -> float:
    return 100 * (before.value - after.value)


def _is_known(rate: Rate | None) -> bool:
    return rate is not None and not math.isnan(rate.value)
