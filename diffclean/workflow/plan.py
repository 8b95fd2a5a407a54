"""Plans what `clean` will do: makes the decisions that the user left open, by the data and by the available time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from diffclean.training.recipes import FAST, RECIPES, STANDARD
from diffclean.workflow.clean_config import CleanConfig
from diffclean.workflow.look_first import Looked

SMALL_SIDE = 64
"""Up to here images are taken as they are, by a network for small images."""
FEWEST_A_CLASS = 5
"""Images a class, on average, below which a classifier cannot be expected to learn anything."""
FEWEST_TO_JUDGE = 16
"""Images of a class below which the default detector says nothing of it (`detection.looks.FEWEST`)."""
FEWEST_TO_TEST = 200
"""Images below which a self-test would show nothing."""
_SHOWN_TO_NETWORK = {STANDARD: 100_000, FAST: 60_000}
"""Images that a network is shown in all, by the recipe."""
_EPOCHS = {STANDARD: (20, 60), FAST: (8, 40)}
_SELF_TEST = 2000
"""Images of a self-test."""
_PASSES = 2
"""Comparisons of the teachers, at most. Each that finds something costs one more training."""


@dataclass(frozen=True)
class Plan:
    """The decisions of a job.

    Attributes:
        arch: the architecture of teacher and student.
        recipe: the recipe of their training, see `training.recipes`.
        size: the side in px to which images are resized for them. None: the images as they are.
        batch_size: the number of images per training step.
        epochs: the number of epochs of each teacher.
        student_epochs: the number of epochs of the student.
        variations: the number of variations of each image.
        self_test: the number of images in the sample for the self-test. 0: there is no self-test.
        no_self_test: why there is no self-test.
        trains: whether classifiers are trained at all.
        searches: whether suspects are looked for.
        passes: how often, at most, the teachers are compared to find suspects that the list missed.
        cannot: what cannot be done with this data and why, in sentences.
        gave_up: what was given up to keep to the budget, in sentences.
        seconds: step -> how long it is expected to take.
        bytes: the disk space that the job is expected to take.
        engine: the engine that makes variations.
        busy: how many times as long it takes while other processes use the machine as they did when this was planned.
    """

    arch: str
    recipe: str
    size: int | None
    batch_size: int
    epochs: int
    student_epochs: int
    variations: int
    self_test: int = 0
    no_self_test: str = ""
    trains: bool = True
    searches: bool = True
    passes: int = 0
    cannot: list[str] = field(default_factory=list)
    gave_up: list[str] = field(default_factory=list)
    seconds: Mapping[str, float] = field(default_factory=dict)
    bytes: int = 0
    engine: str = ""
    busy: float = 1.0

    @property
    def total_s(self) -> float:
        """The number of seconds that the whole job is expected to take."""
        return sum(self.seconds.values())


def first_plan(config: CleanConfig, found: Looked, has_gpu: bool) -> Plan:
    """Return the plan that would be carried out if time did not matter.

    Args:
        config: what was asked for.
        found: what the data set contains.
        has_gpu: whether classifiers are trained on a GPU.
    """
    size = config.size or side_for(found, has_gpu)
    side = size or found.largest_side
    arch = config.arch if config.arch != "auto" else arch_for(side)
    recipe = FAST if arch == RECIPES[FAST]["arch"] else STANDARD
    fewest, most = _EPOCHS[recipe]
    epochs = config.epochs or min(most, max(fewest, round(_SHOWN_TO_NETWORK[recipe] / max(1, found.images))))
    trains = found.images >= FEWEST_A_CLASS * len(found.classes)
    searches = trains and sum(count >= FEWEST_TO_JUDGE for count in found.classes.values()) >= 1
    plan = Plan(
        arch=arch,
        recipe=recipe,
        size=size,
        batch_size=batch_for(found.images),
        epochs=epochs,
        student_epochs=student_epochs(epochs),
        variations=config.variations or (4 if found.images <= 3000 else 2 if found.images <= 20_000 else 1),
        trains=trains,
        searches=searches,
        passes=_PASSES if searches and config.second_pass is not False and config.teacher is None else 0,
        cannot=impossible(found, trains, searches),
    )
    return with_self_test(plan, config, found)


def student_epochs(epochs: int) -> int:
    """Return the epochs of a student for those of its teacher. A student needs more: its images are softer."""
    return round(1.5 * epochs)


def arch_for(side: int) -> str:
    """Choose an architecture by the side of the images in px."""
    return "resnet18" if side > SMALL_SIDE else str(RECIPES[FAST]["arch"])


def side_for(found: Looked, has_gpu: bool) -> int | None:
    """Choose the side in px to which images are resized for the classifiers; None: not resized."""
    if found.largest_side <= SMALL_SIDE and len(found.sizes) == 1:
        return None
    if found.usual_side <= SMALL_SIDE:
        return 32 if found.usual_side <= 32 else SMALL_SIDE
    return max(SMALL_SIDE, min(224 if has_gpu else 128, found.usual_side // 32 * 32))


def batch_for(images: int) -> int:
    """Choose the images per training step: fewer for a small data set, so that an epoch has some twenty steps."""
    batch = 128
    while batch > 8 and images / batch < 20:
        batch //= 2
    return batch


def impossible(found: Looked, trains: bool, searches: bool) -> list[str]:
    """Say in sentences what cannot be done with this data."""
    said = []
    if not trains:
        said.append(
            f"No classifier can be trained: {found.images} images in {len(found.classes)} classes are fewer than "
            f"{FEWEST_A_CLASS} a class. So there is no teacher and no student."
        )
    if not searches:
        reason = f"no class has {FEWEST_TO_JUDGE} images, which a detector needs" if trains else "there are too few"
        said.append(
            f"Nobody can say which images are poisoned: {reason}. So no originals are handed on as a cleaned data set."
        )
    return said


def with_self_test(plan: Plan, config: CleanConfig, found: Looked) -> Plan:
    """Return the plan with a self-test, or with the reason why there is none."""
    if config.self_test is False:
        return replace(plan, no_self_test="it was switched off.")
    if not plan.trains or not plan.searches or found.images < FEWEST_TO_TEST or len(found.classes) < 2:
        return replace(plan, no_self_test=f"it needs {FEWEST_TO_TEST} images and two classes that can be judged.")
    return replace(plan, self_test=min(_SELF_TEST, found.images))


def duration(seconds: float) -> str:
    """Format a duration, such as `40 s`, `12 min` or `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
