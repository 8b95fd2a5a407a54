"""Find suspects in a data set on disk: read what the detector needs, run it, and make the list."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

from diffclean.data.address import spelled
from diffclean.data.places import place_of
from diffclean.data.registry import FOLDER, format_of, open_source
from diffclean.data.run_record import source_of
from diffclean.data.suspects import JudgedImage, SuspectList, merged
from diffclean.detection.base import Detector, Evidence, Judgement
from diffclean.errors import DiffcleanError, UsageError
from diffclean.progress import NoProgress, Progress

if TYPE_CHECKING:
    import torch

    from diffclean.classifiers.classifier_file import ClassifierFile
    from diffclean.classifiers.loading import LoadedClassifier
    from diffclean.datasets.samples import Samples

DEFAULT_DETECTOR = "isolate"


def find_suspects(
    data: Path | None = None,
    detector: str = DEFAULT_DETECTOR,
    teacher: Path | ClassifierFile | None = None,
    variations: Path | None = None,
    size: int | None = None,
    device: str | None = None,
    seed: int = 1,
    progress: Progress | None = None,
    stop: Event | None = None,
    retrained: Path | None = None,
    first: SuspectList | None = None,
) -> SuspectList:
    """Judge every image of a suspect training set.

    Args:
        data: the folder of the suspect data set, `<class>/image`; None: the data set that `variations` was made from.
        detector: the name of a detector, see `registry.DETECTORS`.
        teacher: a classifier that was trained on the data as they are, as in `evaluate`; some detectors need it.
        variations: an output folder of `variate` that was made from the data; some detectors need it.
        size: the side in pixels to which images are resized before they are judged; None: the teacher's size if there
            is a teacher, otherwise the images' own size up to 128.
        device: a torch device; None: CUDA if it works, otherwise the CPU.
        seed: the seed of all random numbers.
        progress: shows how far the work is.
        stop: an event; once it is set, the work stops.
        retrained: a classifier of diffclean that was trained like the teacher, but without the suspects on `first`;
            some detectors need it.
        first: an earlier list of suspects of the same data set, which the result includes.

    Raises:
        UsageError: there is no such detector, an input that it needs is missing, or `first` belongs to other data.
        DiffcleanError: a file or folder cannot be read, or the data and the variations do not belong together.
        Interrupted: `stop` was set.
    """
    if seed < 0:
        raise UsageError(f"`seed` must be 0 or more, not {seed}.")
    chosen, source = checked(data, detector, teacher, variations, retrained, first)
    progress = progress or NoProgress()
    evidence, missing, sha256 = _gathered(chosen, source, teacher, variations, size, device, seed, stop, progress)
    evidence = _second_pass(evidence, source, retrained, first)
    found = chosen.judge(evidence, progress)
    images = _judged(evidence.images, found)
    settings: dict[str, Any] = {"seed": seed, "size": list(evidence.images.pixels.shape)}
    if evidence.teacher is not None:
        settings["arch"] = evidence.teacher.arch
    made = SuspectList(detector, spelled(source), sha256, found.classes, images, missing, settings)
    return made if first is None else merged(first, made)


def checked(
    data: Path | None,
    detector: str,
    teacher: object | None,
    variations: Path | None,
    retrained: Path | None = None,
    first: SuspectList | None = None,
) -> tuple[Detector, Path]:
    """Return the detector and the folder of the suspect data without doing any work.

    The arguments and errors are those of `find_suspects`.
    """
    from diffclean.detection.registry import get

    chosen = get(detector)
    _check_needs(chosen, teacher, variations)
    _check_second_pass(chosen, retrained, first)
    source = data or _source_of(variations)
    if format_of(str(source)) == FOLDER and not place_of(source).is_dir():
        raise DiffcleanError(f"There is no folder {source}.", "Name the suspect data set: diffclean suspects DATA")
    open_source(source)  # says what is wrong where there is no such file
    return chosen, source


def _check_needs(detector: Detector, teacher: object, variations: object) -> None:
    lacking = []
    if detector.needs_teacher and teacher is None:
        lacking.append("a teacher (`teacher` t.pt, from: diffclean train DATA -o t.pt)")
    if detector.needs_variations and variations is None:
        lacking.append("variations (`variations` FOLDER, from: diffclean variate DATA --strength 0.4 --variations 4)")
    if lacking:
        raise UsageError(f"The detector {detector.name} needs {' and '.join(lacking)}.")


def _check_second_pass(detector: Detector, retrained: Path | None, first: SuspectList | None) -> None:
    """Refuse a retrained teacher that the detector does not use, and the lack of one that it needs."""
    if retrained is not None and not detector.needs_retrained:
        from diffclean.detection.registry import DETECTORS

        able = ", ".join(name for name, each in DETECTORS.items() if each.needs_retrained)
        raise UsageError(f"The detector {detector.name} does not use `retrained`.", f"Name one that does: {able}")
    if detector.needs_retrained and (retrained is None or first is None):
        raise UsageError(
            f"The detector {detector.name} needs a list of suspects (`first_list` suspects.json) and a teacher that "
            "was trained without them (`retrained` MODEL).",
            "Train one: diffclean train DATA --without suspects.json -o teacher-anew.pt",
        )


def _second_pass(evidence: Evidence, source: Path, retrained: Path | None, first: SuspectList | None) -> Evidence:
    """The evidence with the earlier list, and with the teacher that was trained without the suspects on it."""
    if first is not None and first.keys:
        from diffclean.datasets.samples import check_listed

        keys = evidence.images.keys
        check_listed(len(keys), sum(key not in first.keys for key in keys), source)
        evidence = replace(evidence, listed=first.keys)
    if retrained is None:
        return evidence
    from diffclean.training.relabel import open_second

    classes = evidence.images.class_to_idx
    return replace(evidence, retrained=open_second(retrained, "retrained", classes, source, evidence.device))


def _source_of(variations: Path | None) -> Path:
    if variations is None:
        raise UsageError("No data set was named.", "Name the suspect data set: diffclean suspects DATA")
    return source_of(variations)


def _gathered(
    detector: Detector,
    source: Path,
    teacher: Path | ClassifierFile | None,
    run: Path | None,
    size: int | None,
    device: str | None,
    seed: int,
    stop: Event | None,
    progress: Progress,
) -> tuple[Evidence, dict[str, str], str]:
    """Read everything that the detector needs.

    Returns:
        The evidence; the keys of images that could not be judged, with the reasons; and the sha256 of the teacher's
        file.
    """
    from diffclean.classifiers.networks import pick_device
    from diffclean.datasets.pairs import paired
    from diffclean.datasets.samples import folder_samples, memory_limit
    from diffclean.datasets.variations import classes_of, load_variations
    from diffclean.evaluation.evaluate import opened

    where = pick_device(device)
    classifier = opened(teacher, source, where) if teacher is not None else None
    classes = classifier.class_to_idx if classifier is not None else classes_of(source)
    shape = (size, size) if size else classifier.size if classifier is not None else _own_size(source)
    memory = memory_limit(None, 1 if run is None else 2)
    original = folder_samples(source, shape, classes, labelled=classifier is None, memory=memory, progress=progress)
    missing = dict(original.failed)
    if classifier is not None:
        _check_order(classifier, teacher, original, source, where)
    varied = None
    if run is not None:
        varied = load_variations(run, classes, shape, labelled=False, memory=memory, progress=progress)
        original, varied = paired(original, varied, missing, source, run)
    sha256 = classifier.sha256 if classifier is not None else ""
    return Evidence(original, where, classifier, varied, seed, stop), missing, sha256


_LOOKED_AT = 512
"""The number of images, drawn from the whole data set, on which the class order of a teacher is checked."""


def _check_order(
    classifier: LoadedClassifier,
    teacher: Path | ClassifierFile | None,
    images: Samples,
    source: Path,
    device: torch.device,
) -> None:
    """Warn if the classes of a teacher seem to be in another order than was assumed or given."""
    import torch

    from diffclean.classifiers.class_order import check_agreement
    from diffclean.classifiers.networks import unit_floats

    told = teacher is not None and not isinstance(teacher, Path) and teacher.classes is not None
    numbers = torch.arange(0, len(images.pixels), max(1, len(images.pixels) // _LOOKED_AT))
    if not (classifier.classes_assumed or told) or not len(numbers):
        return
    parts = images.pixels.batches(numbers.split(64))
    answers = torch.cat([classifier.logits(unit_floats(part.to(device))).argmax(1).cpu() for part in parts])
    labels = images.labels[numbers]
    known = labels >= 0
    order, role = classifier.class_to_idx, classifier.role
    check_agreement(classifier.name, answers[known], labels[known], order, str(source), role)


_SMALL, _LARGEST = 64, 128
"""The sides in pixels of the squares that images of several sizes become: small images, and others."""


def _own_size(source: Path) -> tuple[int, int]:
    """(height, width) to which images are resized if the user gives no size.

    If all images have the same size of up to 128 px, they keep it. Otherwise every image becomes a square of 64 px, or
    of 128 px if some are larger than 64 px. At a smaller size, a fine trigger would vanish that a classifier learns.
    """
    sizes = sampled_sizes(source)
    largest = max(max(size) for size in sizes) if sizes else _SMALL
    if len(sizes) == 1 and largest <= _LARGEST:
        return next(iter(sizes))
    side = _SMALL if largest <= _SMALL else _LARGEST
    return side, side


def sampled_sizes(source: Path) -> set[tuple[int, int]]:
    """Every (height, width) that occurs among about 64 images from the whole data set."""
    from diffclean.data.item import ItemError
    from diffclean.datasets.pixels import read_pixels

    folder = open_source(source)
    sizes = set()
    for item in folder.items()[:: max(1, len(folder.items()) // 64)]:
        try:
            _, height, width = read_pixels(folder, item, None)[0].shape
        except ItemError:
            continue
        sizes.add((height, width))
    return sizes


def _judged(images: Samples, found: Judgement) -> list[JudgedImage]:
    names = {number: name for name, number in images.class_to_idx.items()}
    rows = zip(images.keys, images.labels.tolist(), found.scores, found.probabilities, found.suspects, strict=True)
    return [
        JudgedImage(key, names.get(label, ""), round(float(score), 4), round(float(chance), 4), bool(flag))
        for key, label, score, chance, flag in rows
    ]
