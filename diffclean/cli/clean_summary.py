"""What `clean` and `demo` say at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diffclean.cli.failures import failures
from diffclean.cli.findings import compared, findings

if TYPE_CHECKING:
    from diffclean.evaluation.evaluate import Evaluation
    from diffclean.workflow.clean import CleanResult


def summary(done: CleanResult) -> list[str]:
    """What came out, in lines for people."""
    lines = [done.verdict, *done.reasons]
    lines += _table(done)
    if done.suspects is not None and done.suspects.listed is not None:
        lines += findings(done.suspects.listed)
        if done.suspects.against_manifest is not None:
            lines += compared(done.suspects.against_manifest)
    lines += [f"To keep to the budget: {line}" for line in done.gave_up]
    for check in done.gate:
        found = "not measured" if check.measured is None else f"{check.measured:.1f}"
        said = "passed" if check.passed else "MISSED"
        lines.append(f"Gate --{check.name} {check.limit:g}: {check.of}: {found}, {said}.")
    if done.student is not None:
        lines.append(f"The student: {done.student} (.safetensors and .onnx beside it)")
    if done.suspects is not None:
        lines.append(f"The list of suspects: {done.suspects.out} (.csv beside it)")
    if done.cleaned is not None:
        lines.append(f"The cleaned data set: {done.cleaned}")
    return [*lines, *failures(dict(done.failed)), f"The report: {done.report}"]


def _table(done: CleanResult) -> list[str]:
    """Teacher and student side by side, where they were measured."""
    found = done.measured
    rows = {"teacher, on the data as they are": found.teacher, "teacher, without suspects": found.anew}
    rows["student"] = found.student
    return [f"{name}: {_rates(row)}" for name, row in rows.items() if row is not None]


def _rates(found: Evaluation) -> str:
    said = f"clean accuracy {found.clean_accuracy}"
    if found.attack_success_rate is not None:
        said += f", attack success rate {found.attack_success_rate}"
    return said
