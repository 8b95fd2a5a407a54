"""What `suspects` says at the end: what was found of each class, how good it is, and what to type next."""

from __future__ import annotations

import math
import shlex
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffclean.data.suspects import JudgedClass, SuspectList
    from diffclean.evaluation.listed import ListFigures

SHOWN_CLASSES = 20


def findings(found: SuspectList) -> list[str]:
    """A sentence for each class in which images are listed, and what is said of the others."""
    listed = sorted((judged for judged in found.classes if judged.suspects), key=lambda judged: -judged.suspects)
    lines = [
        f"{judged.name}: {judged.suspects} of {judged.images} images are listed {_beside_limit(judged)}"
        for judged in listed[:SHOWN_CLASSES]
    ]
    if len(listed) > SHOWN_CLASSES:
        lines.append(f"And {len(listed) - SHOWN_CLASSES} more classes, which are all in the list.")
    others = [judged for judged in found.classes if not judged.suspects and judged.images and not judged.too_few]
    if others:
        nearest = max(others, key=lambda judged: judged.separation - judged.limit)
        which = "None of the other classes has" if listed else "No class has"
        lines.append(f"{which} images that are listed. Closest to its limit is {nearest.name} {_beside_limit(nearest)}")
    few = [judged for judged in found.classes if judged.too_few]
    if few:
        named = ", ".join(f"{judged.name} ({judged.images})" for judged in few[:SHOWN_CLASSES])
        more = f" and {len(few) - SHOWN_CLASSES} more" if len(few) > SHOWN_CLASSES else ""
        lines.append(f"Classes with too few images to be judged, of which nothing can be said: {named}{more}.")
    return lines


def _beside_limit(judged: JudgedClass) -> str:
    why = f" {judged.why}" if judged.why else ""
    return f"(separation {judged.separation:.2f}, limit {judged.limit:.2f}).{why}"


def compared(figures: ListFigures) -> list[str]:
    """The list beside the poison manifest."""
    lines = [
        f"Precision, of the listed images those that {figures.attack} poisoned: {figures.precision}",
        f"Recall (TPR), of the poisoned images those that are listed: {figures.recall}",
        f"False positives (FPR), of the clean images those that are listed: {figures.false_positive_rate}",
    ]
    if figures.covers.count:
        lines.append(f"Covers that are listed, which the other figures leave out: {figures.covers}")
    if not math.isnan(figures.auroc):
        lines.append(f"AUROC of the scores: {figures.auroc:.4f}")
    if figures.unjudged:
        lines.append(f"{figures.unjudged} images could not be judged and are not counted.")
    return lines


def next_commands(found: SuspectList, out: Path, teacher: Path | None, variations: Path | None) -> list[str]:
    """What to type next: commands that run as they stand, in the order in which they must be typed.

    Args:
        found: the list.
        out: where it was written.
        teacher: the file of the teacher that was asked, if there was one.
        variations: of the data, if they were needed.
    """
    if not found.keys:
        return ["There is nothing to leave out. That is no proof that the data are clean: see docs/detection.md."]
    if problem := _untrainable(found):
        return [problem]
    source = Path(found.source)
    anew = _free(f"{teacher.stem}-anew" if teacher else "teacher", ".pt", (".jsonl", ".resume"))
    train = ["train", source, "--without", out, "-o", anew, *_like_the_teacher(found, source, teacher)]
    commands = [("A teacher that was trained without them", train)]
    if variations is None:
        variations, is_there = _variations_of(source)
        if not is_there:
            commands.append(("Variations for its student", ["variate", source, "-o", variations]))
    student = _free(f"{anew.stem}-student", ".pt", (".jsonl", ".resume"))
    distil = ["distill", "--teacher", anew, "--data", variations, "--without", out, "-o", student]
    commands.append(("Its student", distil))
    lines = [(f"{what}:", f"    {shlex.join(['diffclean', *map(str, words)])}") for what, words in commands]
    return [line for pair in lines for line in pair]


def _untrainable(found: SuspectList) -> str:
    """Why no classifier can be trained on what is left; empty where one can."""
    if not all(image.label for image in found.images):
        return (
            "The data have no labels, so no teacher can be trained on them. Leave the listed images out of what you do."
        )
    left = Counter(image.label for image in found.images if not image.suspect)
    gone = sorted({image.label for image in found.images} - left.keys())
    if gone:
        return (
            f"Every image of {', '.join(gone[:SHOWN_CLASSES])} is listed, so a classifier cannot be trained on what is "
            "left. Look at these images first: keep some by editing the list, or take the class out of the data."
        )
    return ""


def _like_the_teacher(found: SuspectList, source: Path, teacher: Path | None) -> list[str]:
    """The architecture of the teacher, and a size where the data cannot be trained on, or were not, as they are."""
    from diffclean.detection.find import sampled_sizes

    arch: Any = found.settings.get("arch")
    options = ["--arch", str(arch)] if arch else []
    looked_at, sizes = tuple(found.settings["size"]), sampled_sizes(source)
    if len(sizes) > 1 or (teacher is not None and sizes != {looked_at}):
        options += ["--size", str(max(looked_at))]
    return options


def _variations_of(source: Path) -> tuple[Path, bool]:
    """Where variations of the data are, or can be made; and whether a finished run is there."""
    from diffclean.data.run_record import source_of
    from diffclean.datasets.variations import MANIFEST, is_variation_run

    plain = source.resolve() if source.name in ("", "..") else source  # as `variate` names its output
    usual = Path(f"{plain}-variations")
    finished = is_variation_run(usual) and (usual / MANIFEST).is_file()
    if finished and source_of(usual).resolve() == source.resolve():
        return usual, True
    return _free(str(usual), "", ()), False


def _free(stem: str, suffix: str, beside: tuple[str, ...]) -> Path:
    """A file or folder of that name that is not there yet, nor anything that would lie beside it."""
    number = 1
    while True:
        name = stem if number == 1 else f"{stem}-{number}"
        if not any(Path(name + ending).exists() for ending in (suffix, *beside)):
            return Path(name + suffix)
        number += 1
