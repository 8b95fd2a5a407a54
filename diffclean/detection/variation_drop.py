"""Which images are poisoned, by what variation does to the teacher's answers.

A backdoor is a short cut: on an image with a trigger a poisoned teacher is surer of the target class than the image
itself makes it, and variation takes the trigger away. So for each image its drop is looked at: the teacher's logit of
its answer, less that logit's mean over the image's variations (both less the mean over all classes, since a constant
added to all logits says nothing). Among images of one answer, drops of clean images make one group. Where they make two
(`mixture.split`), the upper one holds the poisoned images. No label is asked for, no clean data, and no idea of the
trigger.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from diffclean.data.run_record import read_run
from diffclean.data.suspects import JudgedClass, JudgedImage, SuspectList
from diffclean.detection.mixture import split
from diffclean.errors import DiffcleanError
from diffclean.evaluation.evaluate import opened
from diffclean.progress import NoProgress, Progress

if TYPE_CHECKING:
    import torch

    from diffclean.classifiers.teacher_config import TeacherConfig
    from diffclean.classifiers.teachers import Teacher
    from diffclean.datasets.samples import Samples

log = logging.getLogger(__name__)

SEPARATED = 0.1
"""From here on there are two groups; how clean and poisoned classes lie to either side: docs/evidence.md."""
_CHANCE = 30
"""Over n images one group alone can look separated by so much over n."""
_ENOUGH = 4
"""Variations of an image whose mean is steady."""
FEWEST = 30
"""Images of one answer below which nothing is said of them."""
SUSPECT = 0.1
"""Probability of the upper group that makes a suspect. Low: a poisoned image kept costs more than a clean one lost."""
_BATCH = 512


def find_suspects(
    teacher: Path | TeacherConfig,
    run: Path,
    originals: Path | None = None,
    device: str | None = None,
    progress: Progress | None = None,
) -> SuspectList:
    """Judge every image that has a variation.

    Args:
        teacher: the suspect classifier, as in `evaluate`.
        run: an output folder of `variate`. The more of the trigger it takes away the better: strength 0.4 and above,
            several variations.
        originals: what was varied; None: where the run says that it was.
        device: a torch device; None: CUDA where it works, else the CPU.
        progress: told of each image.

    Raises:
        DiffcleanError: the originals are gone or are others; the run is not whole; a file cannot be read.
    """
    from diffclean.classifiers.networks import pick_device
    from diffclean.datasets.samples import folder_samples, memory_limit
    from diffclean.datasets.variations import load_variations

    progress = progress or NoProgress()
    source = originals or Path(read_run(run).identity["source"])
    if not source.is_dir():
        raise DiffcleanError(f"The originals of {run}, {source}, are not there.", "Say where: --originals DATA")
    where = pick_device(device)
    classifier = opened(teacher, run, where)
    classes = classifier.class_to_idx
    memory = memory_limit(None, 2)
    varied = load_variations(run, classes, classifier.size, labelled=False, memory=memory, progress=progress)
    original = folder_samples(source, classifier.size, classes, labelled=False, memory=memory, progress=progress)
    if varied.most_variations < _ENOUGH:
        log.warning(
            "%s has %d variations of an image: clean images may look suspect, and poisoned ones not. Better: "
            "diffclean variate %s --strength 0.4 --variations %d",
            run,
            varied.most_variations,
            source,
            _ENOUGH,
        )
    missing = {**varied.failed, **original.failed}
    place = {key: index for index, key in enumerate(original.keys)}
    chosen = []
    for index, key in enumerate(varied.keys):
        if key not in place:
            missing.setdefault(key, f"it is not in {source}")
        elif varied.sources[index] not in ("", original.sources[place[key]]):
            missing[key] = "the original was changed after it was varied"
        else:
            chosen.append(index)
    if not chosen:
        raise DiffcleanError(
            f"No variation in {run} has its original in {source}.", "Say where they are: --originals DATA"
        )
    before = _logits(classifier, original, where)[[place[varied.keys[index]] for index in chosen]]
    after = _means(_logits(classifier, varied, where), varied)[chosen]
    answers = before.argmax(1)
    rows = np.arange(len(chosen))
    drops = (before - after)[rows, answers]
    suspect, judged = judge(drops, answers, list(classes))
    names = {number: name for name, number in classes.items()}
    images = [
        JudgedImage(varied.keys[index], names[int(answer)], round(float(drop), 4), bool(flag))
        for index, answer, drop, flag in zip(chosen, answers, drops, suspect, strict=True)
    ]
    return SuspectList(classifier.sha256, judged, images, missing)


def judge(
    drops: NDArray[np.float64], answers: NDArray[np.int64], classes: list[str]
) -> tuple[NDArray[np.bool_], list[JudgedClass]]:
    """Part the images of each answer where they fall into two groups.

    Args:
        drops: (N,) see the module.
        answers: (N,) the teacher's answer to each original.
        classes: name of each answer.

    Returns:
        (N,) which are suspects, and what was found of each class.
    """
    suspect = np.zeros(len(drops), np.bool_)
    judged = []
    for number, name in enumerate(classes):
        here = np.flatnonzero(answers == number)
        groups = split(drops[here])
        limit = SEPARATED + _CHANCE / max(1, len(here))
        if len(here) >= FEWEST and groups.separation > limit:
            suspect[here] = groups.upper > SUSPECT
        judged.append(JudgedClass(name, len(here), int(suspect[here].sum()), groups.separation, limit))
    return suspect, judged


def _logits(classifier: Teacher, samples: Samples, device: torch.device) -> NDArray[np.float64]:
    """(M, C) of every picture, less their mean over the classes."""
    import torch

    from diffclean.classifiers.networks import unit_floats

    parts = torch.arange(len(samples.pixels)).split(_BATCH)
    answers = [classifier.logits(unit_floats(p.to(device))).cpu() for p in samples.pixels.batches(parts)]
    logits = torch.cat(answers).double()
    centred: NDArray[np.float64] = (logits - logits.mean(1, keepdim=True)).numpy()
    return centred


def _means(logits: NDArray[np.float64], samples: Samples) -> NDArray[np.float64]:
    """(N, C): of each image, over its variations."""
    starts = samples.starts.numpy()
    sums: NDArray[np.float64] = np.add.reduceat(logits, starts[:-1], axis=0)
    return sums / np.diff(starts)[:, None]
