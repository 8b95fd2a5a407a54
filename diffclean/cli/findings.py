"""What `suspects` prints at the end: the findings in each class, how good the list is, and what to type next."""

from __future__ import annotations

import math
import shlex
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffclean.api.variate import beside

if TYPE_CHECKING:
    from diffclean.data.suspects import JudgedClass, SuspectList
    from diffclean.evaluation.listed import ListFigures

SHOWN_CLASSES = 20


def findings(found: SuspectList) -> list[str]:
    """One line for each class that has listed images, and a summary of the other classes."""
    listed = sorted((judged for judged in found.classes if judged.suspects), key=lambda judged: -judged.suspects)
    lines = [
        f"{judged.name}: {judged.suspects} of {judged.images} images are listed {_beside_limit(judged)}"
        for judged in listed[:SHOWN_CLASSES]
    ]
    if len(listed) > SHOWN_CLASSES:
        lines.append(f"{len(listed) - SHOWN_CLASSES} more classes have listed images; all of them are in the list.")
    others = [judged for judged in found.classes if not judged.suspects and judged.images and not judged.too_few]
    if others:
        nearest = max(others, key=lambda judged: judged.separation - judged.limit)
        which = "None of the other classes has" if listed else "No class has"
        lines.append(f"{which} images that are listed. Closest to its limit is {nearest.name} {_beside_limit(nearest)}")
    few = [judged for judged in found.classes if judged.too_few]
    if few:
        named = ", ".join(f"{judged.name} ({judged.images})" for judged in few[:SHOWN_CLASSES])
        more = f" and {len(few) - SHOWN_CLASSES} more" if len(few) > SHOWN_CLASSES else ""
        lines.append(f"These classes have too few images to be judged: {named}{more}.")
    return lines


def _beside_limit(judged: JudgedClass) -> str:
    why = f" {judged.why}" if judged.why else ""
    return f"(separation {judged.separation:.2f}, limit {judged.limit:.2f}).{why}"


def compared(figures: ListFigures) -> list[str]:
    """The lines that compare the list with the poison manifest."""
    lines = [
        f"Precision, the share of listed images that {figures.attack} poisoned: {figures.precision}",
        f"Recall (TPR), the share of poisoned images that are listed: {figures.recall}",
        f"False positives (FPR), the share of clean images that are listed: {figures.false_positive_rate}",
    ]
    if figures.covers.count:
        lines.append(f"Covers that are listed (the other figures do not count covers): {figures.covers}")
    if not math.isnan(figures.auroc):
        lines.append(f"AUROC of the scores: {figures.auroc:.4f}")
    if figures.unjudged:
        lines.append(f"{figures.unjudged} images could not be judged and are not counted.")
    return lines


def next_commands(
    found: SuspectList, out: Path, teacher: Path | None, variations: Path | None, retrained: Path | None = None
) -> list[str]:
    """The commands to type next. They can be copied as they are, in this order.

    Args:
        found: the list of suspects.
        out: the file that the list was written to.
        teacher: the file of the teacher, if the detector needed one.
        variations: the folder of variations, if the detector needed them.
        retrained: the file of the teacher that was trained without an earlier list, if there was one.
    """
    if retrained is not None and len(found.keys) == found.settings["first_list"]["suspects"]:
        return [f"No image is new on this list, so {retrained} need not be trained again."]
    if not found.keys:
        return ["No image is listed. This does not prove that the data are clean: see docs/detection.md."]
    if problem := _untrainable(found):
        return [problem]
    source = Path(found.source)
    anew = _free(f"{teacher.stem}-anew" if teacher else "teacher", ".pt", (".jsonl", ".resume"))
    train = ["train", source, "--without", out, "-o", anew, *_like_the_teacher(found, source, teacher)]
    commands = [("Train a teacher without the listed images", train)]
    if retrained is not None:
        again = ["suspects", source, "--teacher", teacher, "--retrained", anew, "--list", out]
        again += ["-o", _free(out.stem, out.suffix, ())]
        commands.append(("Compare again, until no image is new", again))
    if variations is None:
        variations, is_there = _variations_of(source)
        if not is_there:
            commands.append(("Make the variations for its student", ["variate", source, "-o", variations]))
    student = _free(f"{anew.stem}-student", ".pt", (".jsonl", ".resume"))
    distil = ["distill", "--teacher", anew, "--data", variations, "--without", out, "-o", student]
    commands.append(("Distil its student", distil))
    lines = [(f"{what}:", f"    {shlex.join(['diffclean', *map(str, words)])}") for what, words in commands]
    return [line for pair in lines for line in pair]


def _untrainable(found: SuspectList) -> str:
    """Why no classifier can be trained on the images that are left; an empty text if one can."""
    if not all(image.label for image in found.images):
        return "The data have no labels, so no teacher can be trained on them. Do not use the listed images."
    left = Counter(image.label for image in found.images if not image.suspect)
    gone = sorted({image.label for image in found.images} - left.keys())
    if gone:
        return (
            f"Every image of {', '.join(gone[:SHOWN_CLASSES])} is listed, so a classifier cannot be trained on the "
            "remaining images. Look at these images first: keep some by editing the list, or remove the class from the "
            "data."
        )
    return ""


def _like_the_teacher(found: SuspectList, source: Path, teacher: Path | None) -> list[str]:
    """The teacher's --arch, and a --size if the images differ in size or the teacher was trained at another size."""
    from diffclean.detection.find import sampled_sizes

    arch: Any = found.settings.get("arch")
    options = ["--arch", str(arch)] if arch else []
    looked_at, sizes = tuple(found.settings["size"]), sampled_sizes(source)
    if len(sizes) > 1 or (teacher is not None and sizes != {looked_at}):
        options += ["--size", str(max(looked_at))]
    return options


def _variations_of(source: Path) -> tuple[Path, bool]:
    """The folder of the variations of the data, and whether it holds a finished run; if not, they can be made there."""
    from diffclean.data.run_record import source_of
    from diffclean.datasets.variations import MANIFEST, is_variation_run

    usual = beside(source)
    finished = is_variation_run(usual) and (usual / MANIFEST).is_file()
    if finished and source_of(usual).resolve() == source.resolve():
        return usual, True
    return _free(str(usual), "", ()), False


def _free(stem: str, suffix: str, beside: tuple[str, ...]) -> Path:
    """A name for a file or folder that does not exist yet, and beside which none of the `beside` files exist either."""
    number = 1
    while True:
        name = stem if number == 1 else f"{stem}-{number}"
        if not any(Path(name + ending).exists() for ending in (suffix, *beside)):
            return Path(name + suffix)
        number += 1
