"""Says what a run did not test and what no run can know. Every report says so, in words that fit the run."""

from __future__ import annotations

from diffclean.report.facts import Facts


def untested(facts: Facts) -> list[str]:
    """Return sentences: those of the run itself, then what follows from what it lacked, then what is always so."""
    return [*facts.not_tested, *_of_this_run(facts), *_of_every_run(facts)]


def _of_this_run(facts: Facts) -> list[str]:
    said = []
    outcome, found = facts.outcome, facts.detection
    if outcome is not None and not outcome.test:
        said.append("There was no test set, so nobody knows how accurate the student is.")
    elif outcome is not None and outcome.held_back:
        said.append(
            "There was no trusted test set. Part of the suspect data was held back; its labels are suspect, too."
        )
    if outcome is not None and not outcome.attack:
        said.append(
            "Whether the data are poisoned, and with which trigger, is not known. An attack success rate can only be "
            "measured for an attack that is known, such as those of the self-test."
        )
    if found is not None and (few := [judged.name for judged in found.classes if judged.too_few]):
        named = ", ".join(few[:8]) + (f" and {len(few) - 8} more" if len(few) > 8 else "")
        said.append(f"Classes with too few images were not judged: {named}.")
    if found is not None and found.unjudged:
        said.append(f"{found.unjudged:,} images could not be judged.")
    if outcome is not None and (facts.self_test is None or not facts.self_test.rows):
        said.append("There was no self-test, so it was not tried what these settings do on these data.")
    return said


def _of_every_run(facts: Facts) -> list[str]:
    said = []
    if facts.detection is not None:
        said.append(
            "An image that is not listed may be poisoned all the same. No detector can find a trigger that is a "
            "natural part of the picture, such as a hat or a pair of sunglasses."
        )
    if facts.outcome is not None:
        said.append(
            "A trigger that a student no longer reacts to is weakened, not removed: traces of it may be left in the "
            "variations, and another network might learn them."
        )
    if facts.self_test is not None and facts.self_test.rows:
        said.append("The self-test shows what happens to the attacks that were tried. A real attacker may use another.")
    said.append(
        "Wrong labels, bias and anything else that is wrong with the data and is no backdoor are still there: the "
        "labels of suspect data are suspect, also those of their variations."
    )
    said.append("Whether the model that regenerates the pictures is poisoned itself was not tested.")
    return said
