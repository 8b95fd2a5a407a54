"""The verdict on a run: one sentence, and the reasons that stand below it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from diffclean.evaluation.metrics import Rate
from diffclean.report.facts import Detection, Facts, GateCheck, Measured, Outcome, SelfTest
from diffclean.report.words import images, one_line, percent, rate_text

STOPPED = 0.1
"""A student whose ASR is below this, or no higher than where untriggered images land anyway, hardly reacts."""
WORKS = 0.5
"""A student whose ASR is at least this still has the backdoor."""
COSTLY = 0.03
"""A loss of clean accuracy that is remarked on, as a share of all test images."""
_NEARLY_ALL = 0.9
_NAMED = 5


class Tone(StrEnum):
    """The colour of the verdict."""

    GOOD = "good"
    MIXED = "mixed"
    BAD = "bad"
    PLAIN = "plain"


@dataclass(frozen=True)
class Verdict:
    """The verdict on a run.

    Attributes:
        tone: the colour.
        sentence: the verdict.
        reasons: what supports the verdict, and what speaks against it.
    """

    tone: Tone
    sentence: str
    reasons: tuple[str, ...] = ()


def verdict(facts: Facts) -> Verdict:
    """Judge a run by its measurements. If little was measured, little is claimed."""
    reasons = [*facts.not_done, *_on_accuracy(facts.outcome), *_on_suspects(facts), *_on_self_test(facts.self_test)]
    missed = [check for check in facts.gate if not check.passed]
    if missed:
        return Verdict(Tone.BAD, _missed(missed), tuple(reasons))
    tone, sentence = _judged(facts)
    if tone is Tone.GOOD and (facts.not_done or (_loss(facts.outcome) or 0) > COSTLY):
        tone = Tone.MIXED
    return Verdict(tone, sentence, tuple(one_line(reason) for reason in reasons if reason not in sentence))


def _missed(missed: list[GateCheck]) -> str:
    first = missed[0]
    found = "could not be measured" if first.measured is None else f"is {first.measured:.1f}"
    more = f" {len(missed) - 1} more limits were missed." if len(missed) > 1 else ""
    return f"A limit was missed: --{first.name} allows {first.limit:g}, and {first.of} {found}.{more}"


def _judged(facts: Facts) -> tuple[Tone, str]:
    outcome = facts.outcome
    if outcome is not None and outcome.attack and outcome.after.attack_success_rate is not None:
        return _on_attack(outcome)
    if facts.detection is not None and facts.detection.suspects:
        left = "A student was trained without them." if outcome is not None else "No student was trained."
        return Tone.MIXED, f"{_listed(facts.detection)} {left}"
    if outcome is None:
        made = facts.regenerated
        done = f"{images(made.images)} {_were(made.images)} regenerated." if made else "Nothing was regenerated."
        return Tone.PLAIN, f"{done} No classifier was trained, so nothing is known of a backdoor."
    if facts.detection is None:
        return Tone.PLAIN, "A student was trained on variations alone. Nobody looked for poisoned images."
    return Tone.PLAIN, (
        f"Nothing suspect was found among {images(facts.detection.images)}, which is no proof that they are clean. "
        "A student was trained on their variations."
    )


def _on_attack(outcome: Outcome) -> tuple[Tone, str]:
    before, after = outcome.before.attack_success_rate, outcome.after.attack_success_rate
    assert after is not None
    if outcome.fired is False:
        return Tone.PLAIN, (
            f"The attack {outcome.attack} did not work on the teacher ({rate_text(before)} attack success), so this "
            "run says nothing about the defence."
        )
    change = f"attack success is {percent(after.value)}"
    if before is not None:
        change = f"attack success went from {percent(before.value)} to {percent(after.value)}"
    if after.value >= WORKS:
        return Tone.BAD, f"The student still has the backdoor of {outcome.attack}: {change}."
    if _stopped(outcome.after):
        return Tone.GOOD, f"The student hardly reacts to the trigger of {outcome.attack}: {change}."
    return Tone.MIXED, f"The backdoor of {outcome.attack} is weaker in the student, but it is not gone: {change}."


def _stopped(student: Measured) -> bool:
    """Whether a student, whose ASR is known, hardly reacts to the trigger."""
    assert student.attack_success_rate is not None
    return student.attack_success_rate.value < STOPPED or student.only_lands


def _loss(outcome: Outcome | None) -> float | None:
    """Return how far the student's clean accuracy lies below the teacher's; None if it is not known."""
    if outcome is None or not (_known(outcome.before.clean_accuracy) and _known(outcome.after.clean_accuracy)):
        return None
    assert outcome.before.clean_accuracy is not None
    assert outcome.after.clean_accuracy is not None
    return outcome.before.clean_accuracy.value - outcome.after.clean_accuracy.value


def _known(rate: Rate | None) -> bool:
    return rate is not None and rate.count > 0


def _on_accuracy(outcome: Outcome | None) -> list[str]:
    loss = _loss(outcome)
    if outcome is None:
        return []
    if loss is None:
        return ["Clean accuracy was not measured."] if not _known(outcome.after.clean_accuracy) else []
    assert outcome.before.clean_accuracy is not None
    assert outcome.after.clean_accuracy is not None
    before, after = percent(outcome.before.clean_accuracy.value), percent(outcome.after.clean_accuracy.value)
    judged = f"The student is right on {after} of clean test images; the teacher was on {before}."
    if loss > COSTLY:
        judged += f" It lost {100 * loss:.1f} points, which is much."
    said = [judged]
    if outcome.held_back:
        said.append("The test images are a part of the suspect data, so their labels may be wrong, too.")
    return said


def _on_suspects(facts: Facts) -> list[str]:
    found = facts.detection
    if found is None:
        return []
    said = [_listed(found), *_on_second_pass(found.added)] if found.suspects else []
    said += [
        f"Most images of {judged.name} are listed ({judged.suspects:,} of {judged.images:,}): look at them before you "
        "believe it."
        for judged in found.classes
        if judged.suspects > judged.images / 2
    ][:_NAMED]
    few = sum(judged.too_few for judged in found.classes)
    if few:
        said.append(f"Classes with too few images to be judged: {few} of {len(found.classes)}.")
    return said


def _on_second_pass(added: Sequence[int]) -> list[str]:
    if not added:
        return []
    if not any(added):
        return ["A second pass, which compares the teacher with one that was trained without these, found no more."]
    said = f"{sum(added):,} of these {_were(sum(added))} added by a second pass: the teacher knows them, and one that "
    said += "was trained without the others does not."
    return [said + (" The last pass still found some, so there may be more." if added[-1] else "")]


def _listed(found: Detection) -> str:
    share = f" ({percent(found.suspects / found.images)})" if found.images else ""
    counts = Counter({judged.name: judged.suspects for judged in found.classes if judged.suspects})
    (name, most), *others = counts.most_common(2) or [("", 0)]
    where = ""
    if name and not others:
        where = f", all of them labelled {name}"
    elif name and most >= _NEARLY_ALL * found.suspects:
        where = f", nearly all of them labelled {name}"
    elif name:
        where = f", in {len(counts)} classes"
    return f"{found.suspects:,} of {images(found.images)}{share} {_look(found.suspects)} poisoned{where}."


def _on_self_test(test: SelfTest | None) -> list[str]:
    if test is None:
        return []
    if not test.rows:
        return [f"There was no self-test: {test.skipped}"] if test.skipped else []
    told = [row for row in test.rows if row.fired is not False and _known(row.after.attack_success_rate)]
    if all(row.fired is None for row in test.rows):
        why = next((row.note for row in test.rows if row.note), "")
        return [f"The self-test could not be made. {why}".strip()]
    if not told:
        return ["None of the attacks of the self-test worked on its teacher, so the self-test shows nothing."]
    rates = [row.after.attack_success_rate.value for row in told if row.after.attack_success_rate is not None]
    stopped = sum(_stopped(row.after) for row in told)
    worst = told[rates.index(max(rates))]
    return [
        f"In the self-test, the student hardly reacted to {stopped} of {len(told)} attacks that had worked on the "
        f"teacher; the highest attack success was {percent(max(rates))} ({worst.attack})."
    ]


def _were(count: int) -> str:
    return "was" if count == 1 else "were"


def _look(count: int) -> str:
    return "looks" if count == 1 else "look"
