"""The second pass: a teacher that was trained without the suspects shows which poisoned images the list missed.

The detector `logit-difference` compares that teacher with the first one. Only images with a label that already has
suspects are added: images with the same trigger have the same label, and where the first list holds nothing of a
trigger, both teachers know it, so that a difference says nothing. When images were added, a teacher is trained again.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection
from dataclasses import replace
from functools import partial
from pathlib import Path

from diffclean.data.suspects import JudgedClass, SuspectList, read_list
from diffclean.workflow import made_of, steps
from diffclean.workflow.chain_config import Chain, Places, Step
from diffclean.workflow.runner import Runner

log = logging.getLogger(__name__)

DETECTOR = "logit-difference"
SETTING = "second_pass"
"""The name in the settings of a list below which it says how many images each pass added."""


def look_again(chain: Chain, places: Places, runner: Runner) -> Path:
    """Train the teacher anew and look for what the list missed, until nothing is added or the passes are used up.

    Args:
        chain: determines the steps.
        places: where the outcomes are written. The first list is at `places.without(1)`.
        runner: does the steps.

    Returns:
        The last list.
    """
    # Teachers that were trained in different ways differ in more than the suspects.
    passes = chain.passes if chain.teacher is None and chain.teaching_anew is None else 0
    for number in range(1, passes + 1):
        before, after = places.without(number), places.without(number + 1)
        listed = read_list(before)
        if not listed.keys or not _is_trainable(listed):
            return before
        anew = _train(chain, places.anew(number), runner, before, listed.keys)
        of = made_of.second_pass(chain.digest, places.teacher, anew, before)
        runner.do(Step.SECOND_PASS, partial(_compare, chain, places, runner, number), after, of)
        if read_list(after).keys == listed.keys:
            return after
    return places.without(passes + 1)


def train_anew(chain: Chain, places: Places, runner: Runner, without: Path, left_out: Collection[str]) -> Path:
    """Train the teacher without the suspects, unless a pass has trained the same one.

    Args:
        chain: determines the steps.
        places: where the outcomes are written.
        runner: does the steps.
        without: the list of suspects.
        left_out: the keys of the suspects.

    Returns:
        The file of the teacher.
    """
    of = made_of.teacher(chain.digest, chain.teaching_anew or chain.teaching, left_out)
    found = (places.anew(number) for number in range(chain.passes + 1, 0, -1))
    out = next((place for place in found if runner.is_done(place, of)), places.anew(1))
    return _train(chain, out, runner, without, left_out)


def _train(chain: Chain, out: Path, runner: Runner, without: Path, left_out: Collection[str]) -> Path:
    how = chain.teaching_anew or chain.teaching
    runner.do(
        Step.TEACHER_ANEW,
        lambda: steps.train_teacher(chain.data, out, how, runner.hands, without),
        out,
        made_of.teacher(chain.digest, how, left_out),
    )
    return out


def _is_trainable(listed: SuspectList) -> bool:
    """Whether every class has an image that is not listed."""
    return {image.label for image in listed.images} == {image.label for image in listed.images if not image.suspect}


def _compare(chain: Chain, places: Places, runner: Runner, number: int) -> None:
    """Write the list with what the comparison of both teachers adds to it."""
    from diffclean.detection.find import find_suspects

    listed, hands = read_list(places.without(number)), runner.hands
    found = find_suspects(
        chain.data,
        DETECTOR,
        places.teacher,
        device=chain.device,
        seed=chain.seed,
        progress=hands.progress,
        stop=hands.stop,
        retrained=places.anew(number),
        first=listed,
    )
    longer = with_added(listed, found)
    log.info("The second pass added %d images to the list.", len(longer.keys) - len(listed.keys))
    longer.write(places.without(number + 1))


def with_added(listed: SuspectList, found: SuspectList) -> SuspectList:
    """Return a list with the suspects that a second pass found. Everything else that it says stays.

    Args:
        listed: the list.
        found: the result of the second pass, which holds every image of the list too.
    """
    hit = {image.label for image in listed.images if image.suspect}
    added = {
        image.key: image
        for image in found.images
        if image.suspect and image.key not in listed.keys and image.label in hit
    }
    images = [
        replace(image, suspect=True, probability=added[image.key].probability) if image.key in added else image
        for image in listed.images
    ]
    counts = Counter(image.label for image in added.values())
    by_name = {judged.name: judged for judged in found.classes}
    classes = [_class(judged, counts[judged.name], by_name.get(judged.name)) for judged in listed.classes]
    passes = [*passes_of(listed), len(added)]
    return replace(listed, images=images, classes=classes, settings=listed.settings | {SETTING: passes})


def passes_of(listed: SuspectList) -> list[int]:
    """Return how many images each second pass added to a list, which anybody may have written."""
    found = listed.settings.get(SETTING, [])
    return [count for count in found if type(count) is int] if isinstance(found, list) else []


def _class(judged: JudgedClass, added: int, found: JudgedClass | None) -> JudgedClass:
    if not added or found is None:
        return judged
    why = (
        f"A second pass added {added:,}, which the teacher knows and a teacher without the list does not know "
        f"(separation {found.separation:.2f}, limit {found.limit:.2f})."
    )
    return replace(judged, suspects=judged.suspects + added, why=f"{judged.why} {why}".strip())
